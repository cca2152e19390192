//! Where events come from: a connection over which a server sends its binlog.
//!
//! The driver's stream has no way to give a compressed transaction as it came: it unpacks it in memory as a whole, however large
//! that is, before it gives the first event. So the binlog of MySQL, which alone has such transactions, comes over a connection of
//! our own, which speaks as much of the protocol as that needs. Its accounts, encryption and errors are those of the driver's
//! connections; [`tls`] and [`login`] say what is demanded of a server. MariaDB's comes over the driver's stream.

mod login;
mod packets;
mod tls;

use std::panic::AssertUnwindSafe;

use crossfade_catalog::CatalogError;
use crossfade_config::ServerUrl;
use futures_util::{FutureExt, StreamExt};
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, DriverError, Sid};
use mysql_common::constants::CapabilityFlags;
use mysql_common::packets::BinlogDumpFlags;
use mysql_common::packets::ComRegisterSlave;
use mysql_common::packets::binlog_request::BinlogRequest;

use self::login::{END, ERROR, OK, Session};
use self::packets::Packets;
use crate::event::{Damaged, Event, Framing, NO_EVENT, WRONG_SUM};
use crate::source::Source;
use crate::{BinlogError, event_type};

const COM_QUERY: u8 = 3;
const PROGRAM: &str = "crossfade-binlog";
const HOST_NAME: &[u8] = b"crossfade";
/// A packet that begins like the end of the stream is one only if it is this short.
const END_BYTES: usize = 9;
const SESSION: &str = "SET of the binlog session";
const CHECKSUM_AWARE: &str = "SET @master_binlog_checksum = 'ALL', @source_binlog_checksum = 'ALL'";

/// What is asked of a server.
#[derive(Debug)]
pub(crate) struct Request {
    pub server_id: u32,
    /// The stream ends where the binlog ends now.
    pub until_end: bool,
    pub start: Start,
}

#[derive(Debug)]
pub(crate) enum Start {
    /// What follows a GTID set.
    Gtids(Vec<Sid<'static>>),
    Place {
        file: String,
        offset: u64,
    },
    /// What the session's variables say.
    Session,
}

pub(crate) enum Link {
    Driver { stream: BinlogStream, described: bool },
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
    /// Over the driver's stream.
    pub async fn driver(
        mut conn: Conn,
        source: &Source,
        statements: &[String],
        request: &Request,
    ) -> Result<Link, BinlogError> {
        for statement in statements {
            conn.query_drop(statement).await.map_err(source.refused(SESSION))?;
        }
        let mut asked = BinlogStreamRequest::new(request.server_id).with_hostname(HOST_NAME);
        if request.until_end {
            asked = asked.with_non_blocking();
        }
        asked = match &request.start {
            Start::Gtids(sids) => asked.with_gtid().with_gtid_set(sids.iter().cloned()),
            Start::Place { file, offset } => asked.with_filename(file.as_bytes()).with_pos(*offset),
            Start::Session => asked,
        };
        let stream = conn.get_binlog_stream(asked).await.map_err(source.refused("COM_BINLOG_DUMP"))?;
        Ok(Link::Driver { stream, described: false })
    }

    /// Over a connection of our own, in whose session the statements are run first.
    pub async fn own(
        url: &ServerUrl,
        source: &Source,
        statements: &[String],
        request: &Request,
    ) -> Result<Link, BinlogError> {
        let mut session = login::log_in(url, PROGRAM).await.map_err(|error| match error {
            mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
                CatalogError::NoTls { server: url.to_string() }
            }
            source => CatalogError::Connect { server: url.to_string(), source },
        })?;
        for statement in statements.iter().map(String::as_str).chain([CHECKSUM_AWARE]) {
            let query = [&[COM_QUERY], statement.as_bytes()].concat();
            session.done(&query).await.map_err(source.refused(SESSION))?;
        }
        let register = ComRegisterSlave::new(request.server_id).with_hostname(HOST_NAME);
        session.done(&login::bytes(&register)).await.map_err(source.refused("COM_REGISTER_SLAVE"))?;
        let sent = session.packets.command(&dump_command(request)).await;
        sent.map_err(|error| source.refused("COM_BINLOG_DUMP")(error.into()))?;
        let Session { packets, capabilities } = session;
        Ok(Link::Own(Box::new(OwnLink { packets, capabilities, framing: Framing::default() })))
    }

    /// The next event, its checksum verified. Dropping the future loses nothing.
    pub async fn next(&mut self) -> Result<Event, NoEvent> {
        match self {
            Link::Own(link) => link.next().await,
            Link::Driver { stream, described } => {
                // The driver's parser panics on events shorter than their own header says.
                let next = AssertUnwindSafe(stream.next()).catch_unwind().await;
                let event = match next.map_err(|_| NO_EVENT)? {
                    Some(Ok(event)) => event,
                    Some(Err(error)) => return Err(NoEvent::Failed(error)),
                    None => return Err(NoEvent::Ended),
                };
                verify(&event, described)?;
                Ok(event.into())
            }
        }
    }
}

/// The driver cuts checksums off without a look at them.
fn verify(event: &mysql_async::binlog::events::Event, described: &mut bool) -> Result<(), Damaged> {
    use mysql_async::binlog::BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32 as CRC32;
    let code = event.header().event_type_raw();
    if code == event_type::TRANSACTION_PAYLOAD {
        // The events that follow would be those that the driver has unpacked.
        return Err(Damaged("a compressed transaction of MySQL from another kind of server"));
    }
    // Before the format description nobody knows whether there are checksums.
    *described |= code == event_type::FORMAT_DESCRIPTION;
    let checked = *described && matches!(event.footer().get_checksum_alg(), Ok(Some(algorithm)) if algorithm == CRC32);
    match event.checksum() {
        Some(sum) if checked && u32::from_le_bytes(sum) != event.calc_checksum(CRC32) => Err(WRONG_SUM),
        _ => Ok(()),
    }
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

fn dump_command(request: &Request) -> Vec<u8> {
    let mut asked = BinlogRequest::new(request.server_id);
    if request.until_end {
        asked = asked.with_flags(BinlogDumpFlags::BINLOG_DUMP_NON_BLOCK);
    }
    asked = match &request.start {
        Start::Gtids(sids) => asked.with_use_gtid(true).with_sids(sids.iter().cloned()),
        Start::Place { file, offset } => asked.with_filename(file.as_bytes()).with_pos(*offset),
        Start::Session => asked,
    };
    login::bytes(&asked.as_cmd())
}

#[cfg(test)]
mod tests;
