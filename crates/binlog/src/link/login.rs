//! From an open wire to a session: greeting, encryption, authentication.

use std::collections::HashMap;
use std::panic::catch_unwind;

use crossfade_config::{Endpoint, ServerUrl, TlsMode};
use mysql_async::{DriverError, Error, Result, ServerError};
use mysql_common::constants::CapabilityFlags;
use mysql_common::io::ParseBuf;
use mysql_common::packets::{AuthPlugin, AuthSwitchRequest, ErrPacket, HandshakePacket, HandshakeResponse, SslRequest};
use mysql_common::proto::MySerialize;
use tokio::net::{TcpStream, UnixStream};

use super::packets::{Packets, Wire, bad};
use super::tls::Encryption;

/// What begins an answer (MySQL source documentation, "Generic Response Packets" and "Connection Phase").
pub(super) const OK: u8 = 0;
pub(super) const ERROR: u8 = 0xff;
pub(super) const END: u8 = 0xfe;
const SWITCH: u8 = 0xfe;
const MORE: u8 = 1;
/// caching_sha2_password: the scramble sufficed; the password itself is needed; a request for the server's key.
const FAST_AUTH_OK: u8 = 3;
const FULL_AUTH: u8 = 4;
const ASK_FOR_KEY: u8 = 2;
const LARGEST_PACKET_BYTES: u32 = 1 << 30;
const UTF8MB4: u8 = 45;
/// The nonce, without the zero that ends it.
const NONCE_BYTES: usize = 20;
const NEEDED: CapabilityFlags = CapabilityFlags::CLIENT_PROTOCOL_41
    .union(CapabilityFlags::CLIENT_SECURE_CONNECTION)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH);
const WANTED: CapabilityFlags = NEEDED
    .union(CapabilityFlags::CLIENT_LONG_PASSWORD)
    .union(CapabilityFlags::CLIENT_TRANSACTIONS)
    .union(CapabilityFlags::CLIENT_CONNECT_ATTRS)
    .union(CapabilityFlags::CLIENT_PLUGIN_AUTH_LENENC_CLIENT_DATA);

/// A session at its beginning.
pub(super) struct Session {
    pub packets: Packets,
    pub capabilities: CapabilityFlags,
}

/// Connects and logs in, encrypted as the URL demands: never less than that.
pub(super) async fn log_in(url: &ServerUrl, program: &str) -> Result<Session> {
    begin(open(&url.endpoint).await?, url, program).await
}

async fn begin(wire: Box<dyn Wire>, url: &ServerUrl, program: &str) -> Result<Session> {
    let mut packets = Packets::over(wire);
    let greeting = packets.read().await?;
    if greeting.first() == Some(&ERROR) {
        return Err(refusal(&greeting, CapabilityFlags::empty()));
    }
    let greeting: HandshakePacket<'_> = ParseBuf(&greeting).parse(())?;
    if greeting.protocol_version() != 10 || !greeting.capabilities().contains(NEEDED) {
        return Err(bad("a greeting of another protocol than MySQL's").into());
    }
    let mut capabilities = WANTED & greeting.capabilities();
    let offers_tls = greeting.capabilities().contains(CapabilityFlags::CLIENT_SSL);
    let mut confidential = matches!(url.endpoint, Endpoint::Socket(_));
    if let Some(encryption) = Encryption::of(url).await?
        && (offers_tls || url.tls_mode != TlsMode::Preferred)
    {
        if !offers_tls {
            return Err(DriverError::NoClientSslFlagFromServer.into());
        }
        capabilities |= CapabilityFlags::CLIENT_SSL;
        packets.write(&bytes(&SslRequest::new(capabilities, LARGEST_PACKET_BYTES, UTF8MB4))).await?;
        let (wire, sequence) = packets.into_wire()?;
        packets = Packets::resume(encryption.begin(wire).await?, sequence);
        confidential = true;
    }
    let plugin = match greeting.auth_plugin() {
        Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
        // Whatever else an account wants, the server asks for it later.
        _ => AuthPlugin::MysqlNativePassword,
    };
    let nonce = greeting.nonce();
    let proof = plugin.gen_data(Some(url.password.expose()), &nonce);
    let told = || HashMap::from([("program_name".to_owned(), program.to_owned())]);
    let response = HandshakeResponse::new(
        proof.as_deref(),
        greeting.server_version_parsed().unwrap_or((8, 0, 0)),
        Some(url.user.as_bytes()),
        None::<&[u8]>,
        Some(plugin.clone()),
        capabilities,
        capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS).then(told),
        LARGEST_PACKET_BYTES,
    );
    packets.write(&bytes(&response)).await?;
    let mut session = Session { packets, capabilities };
    let mut login =
        Login { password: url.password.expose(), confidential, plugin: plugin.into_owned(), nonce, switched: false };
    while !login.goes_on(&mut session).await? {}
    Ok(session)
}

async fn open(endpoint: &Endpoint) -> Result<Box<dyn Wire>> {
    Ok(match endpoint {
        Endpoint::Tcp { host, port } => {
            let stream = TcpStream::connect((host.as_str(), *port)).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Endpoint::Socket(path) => Box::new(UnixStream::connect(path).await?),
    })
}

/// The authentication at hand.
struct Login<'a> {
    password: &'a str,
    /// Nobody on the way can read what is sent.
    confidential: bool,
    plugin: AuthPlugin<'static>,
    nonce: Vec<u8>,
    /// The server has asked for another plugin, which it may do once.
    switched: bool,
}

impl Login<'_> {
    /// Takes one answer. True when the session has begun.
    async fn goes_on(&mut self, session: &mut Session) -> Result<bool> {
        let answer = session.packets.read().await?;
        match (answer.first(), answer.get(1)) {
            (Some(&OK), _) => return Ok(true),
            (Some(&ERROR), _) => return Err(refusal(&answer, session.capabilities)),
            (Some(&SWITCH), Some(_)) if !self.switched => self.switch(&answer, session).await?,
            (Some(&MORE), Some(&FAST_AUTH_OK)) if self.plugin == AuthPlugin::CachingSha2Password => {}
            (Some(&MORE), Some(&FULL_AUTH)) if self.plugin == AuthPlugin::CachingSha2Password => {
                self.give_password(session).await?;
            }
            _ => return Err(bad("an answer that no authentication has").into()),
        }
        Ok(false)
    }

    async fn switch(&mut self, answer: &[u8], session: &mut Session) -> Result<()> {
        let asked: AuthSwitchRequest<'_> = ParseBuf(answer).parse(())?;
        self.plugin = match asked.auth_plugin() {
            plugin @ (AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword) => plugin.into_owned(),
            // Among them those that would have the password itself sent, to whoever asks.
            other => {
                let name = String::from_utf8_lossy(other.as_bytes()).into_owned();
                return Err(DriverError::UnknownAuthPlugin { name }.into());
            }
        };
        self.switched = true;
        self.nonce = asked.plugin_data().to_vec();
        self.nonce.resize(NONCE_BYTES, 0);
        let proof = self.plugin.gen_data(Some(self.password), &self.nonce);
        Ok(session.packets.write(proof.as_deref().unwrap_or_default()).await?)
    }

    /// The server does not remember the account's password. It gets it where nobody can listen, and else encrypted with its key.
    async fn give_password(&self, session: &mut Session) -> Result<()> {
        let mut password = [self.password.as_bytes(), &[0]].concat();
        if !self.confidential {
            session.packets.write(&[ASK_FOR_KEY]).await?;
            let answer = session.packets.read().await?;
            let Some((&MORE, key)) = answer.split_first() else {
                return Err(if answer.first() == Some(&ERROR) {
                    refusal(&answer, session.capabilities)
                } else {
                    bad("an answer that holds no key").into()
                });
            };
            password.iter_mut().zip(self.nonce.iter().cycle()).for_each(|(byte, nonce)| *byte ^= nonce);
            // It panics on what is not a key, and on passwords longer than one.
            password = catch_unwind(|| mysql_common::crypto::encrypt(&password, key))
                .map_err(|_| bad("a key that the password cannot be encrypted with"))?;
        }
        Ok(session.packets.write(&password).await?)
    }
}

/// What the server says where it refuses.
pub(super) fn refusal(packet: &[u8], capabilities: CapabilityFlags) -> Error {
    match ParseBuf(packet).parse(capabilities) {
        Ok(ErrPacket::Error(error)) => ServerError {
            code: error.error_code(),
            message: error.message_str().into_owned(),
            state: error.sql_state_ref().map(|state| state.as_str().into_owned()).unwrap_or_default(),
        }
        .into(),
        _ => bad("an error that cannot be read").into(),
    }
}

pub(super) fn bytes(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}
