//! From an open wire to a session: greeting, encryption, authentication.

use std::collections::HashMap;
use std::panic::catch_unwind;

use crossfade_config::{Endpoint, ServerUrl, TlsMode};
use mysql_async::{DriverError, Error, Result};
use mysql_common::constants::{CapabilityFlags, UTF8MB4_GENERAL_CI};
use mysql_common::io::ParseBuf;
use mysql_common::packets::caching_sha2_password::PublicKeyRequest;
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
/// caching_sha2_password: the scramble sufficed; the password itself is needed.
const FAST_AUTH_OK: u8 = 3;
const FULL_AUTH: u8 = 4;
/// Room for RSA keys of 8192 bits, the longest that a server can use. Encrypting with much longer ones would take minutes.
const LARGEST_KEY_BYTES: usize = 2 << 10;
/// Names of plugins are shown to people.
const LARGEST_NAME_CHARS: usize = 64;
const LARGEST_PACKET_BYTES: u32 = 1 << 30;
const PROTOCOL: u8 = 10;
/// A version of the server, which is asked for to choose the character set.
const KNOWS_UTF8MB4: (u16, u16, u16) = (8, 0, 0);
/// As for the driver's connections.
const PROGRAM: &str = "crossfade-binlog";
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
///
/// # Errors
///
/// [`DriverError::UnknownAuthPlugin`] where the server asks for something that is not known here, so that another client may
/// have more luck. Whoever is refused is refused with the server's own words.
pub(super) async fn log_in(url: &ServerUrl, encryption: Option<Encryption>) -> Result<Session> {
    let mut packets = Packets::over(open(&url.endpoint).await?);
    let greeting = packets.read().await?;
    if greeting.first() == Some(&ERROR) {
        return Err(refusal(&greeting, CapabilityFlags::empty()));
    }
    // The parser panics on some nonsense where arithmetic is checked.
    let greeting = catch_unwind(|| ParseBuf(&greeting).parse::<HandshakePacket<'_>>(()));
    let greeting = greeting.map_err(|_| bad("a greeting that cannot be read"))??;
    let plugin = match greeting.auth_plugin() {
        Some(AuthPlugin::CachingSha2Password) => AuthPlugin::CachingSha2Password,
        // Whatever else an account wants, the server asks for it later.
        _ => AuthPlugin::MysqlNativePassword,
    };
    if greeting.protocol_version() != PROTOCOL || !greeting.capabilities().contains(NEEDED) {
        return Err(unknown(b"mysql_old_password"));
    }
    let mut session = Session { packets, capabilities: WANTED & greeting.capabilities() };
    let mut confidential = matches!(url.endpoint, Endpoint::Socket(_));
    match encryption {
        Some(encryption) if greeting.capabilities().contains(CapabilityFlags::CLIENT_SSL) => {
            session = session.encrypted(encryption).await?;
            confidential = true;
        }
        Some(_) if url.tls_mode != TlsMode::Preferred => return Err(DriverError::NoClientSslFlagFromServer.into()),
        _ => {}
    }
    let mut login =
        Login { password: url.password.expose(), confidential, plugin, nonce: greeting.nonce(), switched: false };
    session.introduce(url, &login).await?;
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

impl Session {
    async fn encrypted(mut self, encryption: Encryption) -> Result<Session> {
        self.capabilities |= CapabilityFlags::CLIENT_SSL;
        let request = SslRequest::new(self.capabilities, LARGEST_PACKET_BYTES, UTF8MB4_GENERAL_CI as u8);
        self.packets.write(&bytes(&request)).await?;
        let (wire, codec) = self.packets.into_parts()?;
        Ok(Session { packets: Packets::resume(encryption.begin(wire).await?, codec), ..self })
    }

    /// Says who logs in, with the first proof of it.
    async fn introduce(&mut self, url: &ServerUrl, login: &Login<'_>) -> Result<()> {
        let told = || HashMap::from([("program_name".to_owned(), PROGRAM.to_owned())]);
        let proof = login.plugin.gen_data(Some(login.password), &login.nonce);
        let response = HandshakeResponse::new(
            proof.as_deref(),
            KNOWS_UTF8MB4,
            Some(url.user.as_bytes()),
            None::<&[u8]>,
            Some(login.plugin.borrow()),
            self.capabilities,
            self.capabilities.contains(CapabilityFlags::CLIENT_CONNECT_ATTRS).then(told),
            LARGEST_PACKET_BYTES,
        );
        Ok(self.packets.write(&bytes(&response)).await?)
    }
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
            // Among them the wish for a second factor.
            _ => return Err(unknown(self.plugin.as_bytes())),
        }
        Ok(false)
    }

    async fn switch(&mut self, answer: &[u8], session: &mut Session) -> Result<()> {
        let asked: AuthSwitchRequest<'_> = ParseBuf(answer).parse(())?;
        self.plugin = match asked.auth_plugin() {
            plugin @ (AuthPlugin::CachingSha2Password | AuthPlugin::MysqlNativePassword) => plugin.into_owned(),
            // Among them those that would have the password itself sent, to whoever asks.
            other => return Err(unknown(other.as_bytes())),
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
            session.packets.write(&bytes(&PublicKeyRequest::new())).await?;
            let answer = session.packets.read().await?;
            let key = match answer.split_first() {
                Some((&MORE, key)) if key.len() <= LARGEST_KEY_BYTES => key,
                Some((&ERROR, _)) => return Err(refusal(&answer, session.capabilities)),
                _ => return Err(bad("an answer that holds no key").into()),
            };
            password.iter_mut().zip(self.nonce.iter().cycle()).for_each(|(byte, nonce)| *byte ^= nonce);
            // It panics on what is not a key, and on passwords longer than one.
            password = catch_unwind(|| mysql_common::crypto::encrypt(&password, key))
                .map_err(|_| bad("a key that the password cannot be encrypted with"))?;
        }
        Ok(session.packets.write(&password).await?)
    }
}

/// The account or the server wants what is not known here.
fn unknown(plugin: &[u8]) -> Error {
    let name = String::from_utf8_lossy(plugin).chars().take(LARGEST_NAME_CHARS).collect();
    DriverError::UnknownAuthPlugin { name }.into()
}

/// What the server says where it refuses.
pub(super) fn refusal(packet: &[u8], capabilities: CapabilityFlags) -> Error {
    match ParseBuf(packet).parse(capabilities) {
        Ok(ErrPacket::Error(error)) => error.into(),
        _ => bad("an error that cannot be read").into(),
    }
}

pub(super) fn bytes(packet: &impl MySerialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    packet.serialize(&mut bytes);
    bytes
}
