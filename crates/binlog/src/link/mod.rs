//! Where events come from: a connection over which a server sends its binlog.
//!
//! The driver's stream has no way to give a compressed transaction as it came: it unpacks it in memory as a whole, however large
//! that is, before it gives the first event. So the binlog of MySQL, which alone has such transactions, comes over a connection of
//! our own, which speaks as much of the protocol as that needs. Its accounts, encryption and errors are those of the driver's
//! connections; [`tls`] and [`login`] say what is demanded of a server. Where an account wants an authentication that is not known
//! here, the driver's connection is taken, with a warning. MariaDB's binlog comes over the driver's stream.

mod driver;
mod login;
mod packets;
mod tls;

use std::sync::Once;
use std::time::Duration;

use crossfade_catalog::CatalogError;
use crossfade_config::ServerUrl;
use mysql_async::{Conn, DriverError, Error};
use mysql_common::constants::{CapabilityFlags, Command};
use mysql_common::packets::ComRegisterSlave;
use mysql_common::packets::binlog_request::BinlogRequest;

use self::driver::DriverLink;
use self::login::{END, ERROR, OK, Session};
use self::packets::Packets;
use self::tls::Encryption;
use crate::BinlogError;
use crate::decode::Flavor;
use crate::event::{Damaged, Event, Framing, NO_EVENT};
use crate::source::Source;

const LOGIN_TIME_OUT: Duration = Duration::from_secs(10);
const HOST_NAME: &[u8] = b"crossfade";
/// A packet that begins like the end of the stream is one only if it is this short.
const END_BYTES: usize = 9;
const SESSION: &str = "SET of the binlog session";

pub(crate) enum Link {
    Driver(Box<DriverLink>),
    Own(Box<OwnLink>),
}

pub(crate) struct OwnLink {
    packets: Packets,
    framing: Framing,
    capabilities: CapabilityFlags,
}

/// Why no event comes.
#[derive(Debug)]
pub(crate) enum NoEvent {
    Failed(mysql_async::Error),
    Damaged(Damaged),
    Ended,
}

impl From<Damaged> for NoEvent {
    fn from(damaged: Damaged) -> NoEvent {
        NoEvent::Damaged(damaged)
    }
}

impl Link {
    /// Asks for the binlog, in a session in which the statements are run first. `conn` is a fresh connection of the driver's.
    pub async fn open(
        conn: Conn,
        url: &ServerUrl,
        source: &Source,
        statements: &[String],
        request: &BinlogRequest<'_>,
    ) -> Result<Link, BinlogError> {
        if source.flavor == Flavor::MySql {
            match Link::own(url, source, statements, request).await {
                Ok(link) => {
                    // It has answered what was asked; how it says good-bye is of no interest.
                    let _ = conn.disconnect().await;
                    return Ok(link);
                }
                Err(error) => warn_of(unknown_plugin(error)?, source),
            }
        }
        Ok(Link::Driver(Box::new(DriverLink::open(conn, source, statements, request).await?)))
    }

    /// Over a connection of our own.
    async fn own(
        url: &ServerUrl,
        source: &Source,
        statements: &[String],
        request: &BinlogRequest<'_>,
    ) -> Result<Link, BinlogError> {
        let mut session = log_in(url).await?;
        for statement in statements {
            let query = [&[Command::COM_QUERY as u8], statement.as_bytes()].concat();
            session.done(&query).await.map_err(source.refused(SESSION))?;
        }
        let register = ComRegisterSlave::new(request.server_id()).with_hostname(HOST_NAME);
        session.done(&login::bytes(&register)).await.map_err(source.refused("COM_REGISTER_SLAVE"))?;
        session.packets.expect_events();
        let sent = session.packets.command(&login::bytes(&request.as_cmd())).await;
        sent.map_err(|error| source.refused("COM_BINLOG_DUMP")(error.into()))?;
        let Session { packets, capabilities } = session;
        Ok(Link::Own(Box::new(OwnLink { packets, capabilities, framing: Framing::default() })))
    }

    /// The next event, its checksum verified. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Event, NoEvent> {
        match self {
            Link::Own(link) => link.next().await,
            Link::Driver(link) => link.next().await,
        }
    }

    /// How much of the event at hand has come. The driver does not tell.
    pub fn unfinished_bytes(&self) -> usize {
        match self {
            Link::Own(link) => link.packets.unfinished_bytes(),
            Link::Driver(_) => 0,
        }
    }
}

/// As for every other connection: see `crossfade_catalog::connect`.
async fn log_in(url: &ServerUrl) -> Result<Session, CatalogError> {
    let (server, waited) = (url.to_string(), LOGIN_TIME_OUT);
    let encryption = Encryption::of(url).await?;
    match tokio::time::timeout(waited, login::log_in(url, encryption)).await {
        Ok(Err(Error::Driver(DriverError::NoClientSslFlagFromServer))) => Err(CatalogError::NoTls { server }),
        Ok(session) => session.map_err(|source| CatalogError::Connect { server, source }),
        Err(_) => Err(CatalogError::TimedOut { server, waited }),
    }
}

/// The name of the plugin, where it is what keeps a connection of our own from being made.
fn unknown_plugin(error: BinlogError) -> Result<String, BinlogError> {
    match error {
        BinlogError::Catalog(CatalogError::Connect {
            source: Error::Driver(DriverError::UnknownAuthPlugin { name }),
            ..
        }) => Ok(name),
        error => Err(error),
    }
}

/// Says once how the process reads from here on; each connection would say the same.
fn warn_of(plugin: String, source: &Source) {
    static TOLD: Once = Once::new();
    TOLD.call_once(|| {
        tracing::warn!(
            server = %source.address,
            ?plugin,
            "the account's authentication plugin is known to the driver only, so the binlog comes over the driver's connection: \
             compressed transactions are unpacked whole in memory, which an account with caching_sha2_password avoids"
        );
    });
}

impl Session {
    /// Runs a command that has no result but that it is done.
    async fn done(&mut self, command: &[u8]) -> mysql_async::Result<()> {
        self.packets.command(command).await?;
        let answer = self.packets.read().await?;
        match answer.first() {
            Some(&OK) => Ok(()),
            Some(&ERROR) => Err(login::refusal(&answer, self.capabilities)),
            _ => Err(packets::bad("an answer that no such command has").into()),
        }
    }
}

impl OwnLink {
    async fn next(&mut self) -> Result<Event, NoEvent> {
        let packet = self.packets.read().await.map_err(|error| NoEvent::Failed(error.into()))?;
        match packet.first() {
            Some(&OK) => Ok(self.framing.event(packet, 1)?),
            Some(&ERROR) => Err(NoEvent::Failed(login::refusal(&packet, self.capabilities))),
            Some(&END) if packet.len() < END_BYTES => Err(NoEvent::Ended),
            _ => Err(NO_EVENT.into()),
        }
    }
}

#[cfg(test)]
mod tests;
