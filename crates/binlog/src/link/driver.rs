//! Events over the driver's stream, with what it leaves to be checked.

use std::io;
use std::panic::AssertUnwindSafe;

use futures_util::{FutureExt, StreamExt};
use mysql_async::binlog::BinlogChecksumAlg::BINLOG_CHECKSUM_ALG_CRC32 as CRC32;
use mysql_async::prelude::Queryable;
use mysql_async::{BinlogStream, BinlogStreamRequest, Conn, Error, IoError};
use mysql_common::packets::BinlogDumpFlags;
use mysql_common::packets::binlog_request::BinlogRequest;

use super::{HOST_NAME, NoEvent, SESSION};
use crate::decode::payload::Payload;
use crate::event::{Damaged, Event, NO_EVENT, WRONG_SUM};
use crate::source::Source;
use crate::{BinlogError, event_type};

/// The driver's words for a connection that ends in the middle of an event, which has damaged nothing.
const CUT_SHORT: &str = "bytes remaining on stream";

pub(crate) struct DriverLink {
    stream: BinlogStream,
    described: bool,
    /// Bytes of the events that the driver has unpacked behind a compressed transaction, as far as they have not come.
    unpacked: u64,
}

impl DriverLink {
    /// In a session in which the statements are run first.
    pub async fn open(
        mut conn: Conn,
        source: &Source,
        statements: &[String],
        request: &BinlogRequest<'_>,
    ) -> Result<DriverLink, BinlogError> {
        for statement in statements {
            conn.query_drop(statement).await.map_err(source.refused(SESSION))?;
        }
        let mut asked = BinlogStreamRequest::new(request.server_id())
            .with_hostname(HOST_NAME)
            .with_filename(request.filename_raw())
            .with_pos(request.pos())
            .with_gtid_set(request.sids().iter().cloned());
        if request.use_gtid() {
            asked = asked.with_gtid();
        }
        if request.flags().contains(BinlogDumpFlags::BINLOG_DUMP_NON_BLOCK) {
            asked = asked.with_non_blocking();
        }
        let stream = conn.get_binlog_stream(asked).await.map_err(source.refused("COM_BINLOG_DUMP"))?;
        Ok(DriverLink { stream, described: false, unpacked: 0 })
    }

    pub async fn next(&mut self) -> Result<Event, NoEvent> {
        loop {
            // The driver's parser panics on events shorter than their own header says.
            let next = AssertUnwindSafe(self.stream.next()).catch_unwind().await;
            let event = match next.map_err(|_| NO_EVENT)? {
                Some(Ok(event)) => event,
                Some(Err(Error::Io(IoError::Io(error)))) if error.to_string() == CUT_SHORT => {
                    return Err(NoEvent::Failed(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
                }
                Some(Err(error)) => return Err(NoEvent::Failed(error)),
                None => return Err(NoEvent::Ended),
            };
            if self.unpacked > 0 {
                self.pass_over(event.header().event_type_raw(), event.header().event_size())?;
                continue;
            }
            verify(&event, &mut self.described)?;
            let event = Event::from(event);
            if event.header.code == event_type::TRANSACTION_PAYLOAD {
                self.unpacked = Payload::unpacked_bytes(event.body()).map_err(|_| NO_EVENT)?;
            }
            return Ok(event);
        }
    }

    /// A compressed transaction is unpacked by whoever gets it. The driver has done so, too, and says nothing where it cannot:
    /// then what comes is no event of the transaction.
    fn pass_over(&mut self, code: u8, size: u32) -> Result<(), Damaged> {
        let left = self.unpacked.checked_sub(u64::from(size));
        self.unpacked = left.filter(|_| !event_type::is_never_inside_payload(code)).ok_or(NO_EVENT)?;
        Ok(())
    }
}

/// The driver cuts checksums off without a look at them.
fn verify(event: &mysql_async::binlog::events::Event, described: &mut bool) -> Result<(), Damaged> {
    // Before the format description nobody knows whether there are checksums.
    *described |= event.header().event_type_raw() == event_type::FORMAT_DESCRIPTION;
    let checked = *described && matches!(event.footer().get_checksum_alg(), Ok(Some(algorithm)) if algorithm == CRC32);
    match event.checksum() {
        Some(sum) if checked && u32::from_le_bytes(sum) != event.calc_checksum(CRC32) => Err(WRONG_SUM),
        _ => Ok(()),
    }
}
