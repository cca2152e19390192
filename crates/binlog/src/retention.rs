//! How long a source still keeps what is not read yet.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crossfade_catalog::{Purpose, connect};
use crossfade_config::ServerUrl;
use crossfade_model::Position;
use mysql_async::Conn;

use crate::dump::Dump;
use crate::source::{Source, is_reached};
use crate::work::{Timeouts, answered};
use crate::xa::FilePlace;
use crate::{BinlogError, event_type};

const TIMEOUTS: Timeouts = (Duration::from_secs(5), Duration::from_secs(15));

/// What of a source's binlog is not read yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unread {
    /// The file with the oldest transaction that is not read. Where all is read: the one that is written now.
    pub oldest_file: String,
    /// That file and those after it.
    pub files: usize,
    /// Their size, bytes; what is read of the oldest one included.
    pub bytes: u64,
    /// How long the source keeps a file after the last write to it; `None` for ever.
    pub kept: Option<Duration>,
    /// Until the source may purge the oldest of the files; `None` where it keeps them for ever. The file that is written now
    /// has all of the time before it.
    pub left: Option<Duration>,
}

impl Unread {
    /// A person should act: less than a quarter of the time is left.
    pub fn is_urgent(&self) -> bool {
        self.left.zip(self.kept).is_some_and(|(left, kept)| left < kept / 4)
    }
}

/// Looks where the binlog goes on for one who has read up to `read`, and when the source may purge that.
///
/// Asks about a dozen short questions on connections of its own, more the more files there are (their logarithm); changes
/// nothing. MySQL and MariaDB purge a file when the retention has passed since its last write (MySQL manual,
/// "binlog_expire_logs_seconds"), which is when the next file began; files that a person purges, or a limit of their total
/// size, are not foreseen.
///
/// # Errors
///
/// [`BinlogError::Purged`] where it is too late, and whatever asking can give.
pub async fn unread(url: &ServerUrl, read: &Position) -> Result<Unread, BinlogError> {
    let asking = async {
        let mut conn = connect(url, Purpose::Catalog).await?;
        let source = Source::ask(&mut conn, &url.address()).await?;
        source.check_start(&mut conn, read).await?;
        let files = source.files(&mut conn).await?;
        let first = first_unread(&source, &mut conn, &files, read).await?;
        let kept = source.facts.binlog.retention;
        let left = match (kept, files.get(first + 1)) {
            (None, _) => None,
            (Some(kept), None) => Some(kept),
            (Some(kept), Some((next, _))) => {
                let began = began_at(url, &source, next).await?;
                Some((began + kept).duration_since(now_of(&source)).unwrap_or_default())
            }
        };
        let unread = files.get(first..).unwrap_or_default();
        Ok(Unread {
            oldest_file: unread.first().map(|(name, _)| name.clone()).unwrap_or_default(),
            files: unread.len(),
            bytes: unread.iter().map(|(_, bytes)| bytes).sum(),
            kept,
            left,
        })
    };
    answered(url, asking).await
}

/// The last file of which everything before it is read.
async fn first_unread(
    source: &Source,
    conn: &mut Conn,
    files: &[(String, u64)],
    read: &Position,
) -> Result<usize, BinlogError> {
    if let Position::File { file, .. } = read {
        return Ok(files.iter().position(|(name, _)| name == file).unwrap_or(0));
    }
    let (mut first, mut end) = (0, files.len());
    while end - first > 1 {
        let middle = first + (end - first) / 2;
        let before = source.state_before(conn, &files[middle].0).await?;
        if is_reached(read, &before) { first = middle } else { end = middle }
    }
    Ok(first)
}

/// When a file was begun, by the source's clock: the time of the description at its head.
async fn began_at(url: &ServerUrl, source: &Source, file: &str) -> Result<SystemTime, BinlogError> {
    let head = FilePlace { file: file.to_owned(), offset: 4 };
    let mut dump = Dump::from_place(url, source, &head, TIMEOUTS).await?;
    loop {
        let frame = dump.next().await?;
        if frame.event_type() == event_type::FORMAT_DESCRIPTION && frame.event.header.timestamp > 0 {
            return Ok(UNIX_EPOCH + Duration::from_secs(u64::from(frame.event.header.timestamp)));
        }
    }
}

fn now_of(source: &Source) -> SystemTime {
    let ahead = source.facts.clock.micros;
    let difference = Duration::from_micros(ahead.unsigned_abs());
    if ahead < 0 { SystemTime::now() - difference } else { SystemTime::now() + difference }
}
