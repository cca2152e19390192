//! What a reader does beside reading: connecting, asking for definitions, looking for prepared transactions.
//!
//! Each runs as a task of its own, so that a caller who gives up waiting for the next part does not start it over.

use std::sync::Arc;
use std::time::Duration;

use crossfade_catalog::{Purpose, Servers, connect, table_shape};
use crossfade_config::ServerUrl;
use crossfade_model::{Position, TableName, TableShape};

use crate::BinlogError;
use crate::dump::{Dump, Until};
use crate::event_type;
use crate::group::{Group, GroupReader};
use crate::route::own_tables;
use crate::source::Source;
use crate::xa::{FilePlace, Xid};

/// Heartbeat period and read time-out of a connection.
pub(crate) type Timeouts = (Duration, Duration);

/// A connection from which events come.
pub(crate) struct Connected {
    pub url: ServerUrl,
    pub source: Source,
    pub dump: Dump,
    pub own_shapes: Vec<Arc<TableShape>>,
}

/// How long questions to a server may take in all; they are few and small.
const ANSWER_TIME_OUT: Duration = Duration::from_secs(30);

/// A link can die between a question and its answer, too.
pub(crate) async fn answered<T>(
    url: &ServerUrl,
    asking: impl Future<Output = Result<T, BinlogError>>,
) -> Result<T, BinlogError> {
    let silent = |_| BinlogError::Silent { server: url.address(), seconds: ANSWER_TIME_OUT.as_secs() };
    tokio::time::timeout(ANSWER_TIME_OUT, asking).await.map_err(silent)?
}

/// Connects to the first of the servers from which the stream can go on at `position`, and asks for the binlog.
///
/// What one server refuses, the next one may have; the last refusal is told.
pub(crate) async fn connect_to_one(
    servers: Servers,
    position: Position,
    timeouts: Timeouts,
) -> Result<Connected, BinlogError> {
    let readable = servers.readable(&position).await?;
    let Some((last, others)) = readable.split_last() else {
        return Err(BinlogError::Ended { server: "every server".to_owned() });
    };
    for url in others {
        match connect_at(url.clone(), position.clone(), timeouts).await {
            Ok(connected) => return Ok(connected),
            Err(error) => tracing::debug!(server = %url.address(), %error, "not read from there"),
        }
    }
    connect_at(last.clone(), position, timeouts).await
}

/// Connects, checks that the server is the one to read from `position`, and asks for the binlog.
pub(crate) async fn connect_at(
    url: ServerUrl,
    position: Position,
    timeouts: Timeouts,
) -> Result<Connected, BinlogError> {
    let own_shapes = own_shapes(&url).await?;
    let connecting = async {
        let mut conn = connect(&url, Purpose::Binlog).await?;
        let source = Source::ask(&mut conn, &url.address()).await?;
        source.check_start(&mut conn, &position).await?;
        let dump = Dump::start(conn, &url, &source, &position, Until::Forever, timeouts).await?;
        Ok(Connected { url: url.clone(), source, dump, own_shapes })
    };
    answered(&url, connecting).await
}

/// The definitions of crossfade's own tables, as far as they exist.
pub(crate) async fn own_shapes(url: &ServerUrl) -> Result<Vec<Arc<TableShape>>, BinlogError> {
    let asking = async {
        let mut conn = connect(url, Purpose::Catalog).await?;
        let mut shapes = Vec::new();
        for table in own_tables() {
            shapes.extend(table_shape(&mut conn, &table).await?.map(Arc::new));
        }
        Ok(shapes)
    };
    answered(url, asking).await
}

pub(crate) async fn shape_of(url: &ServerUrl, table: &TableName) -> Result<Option<Arc<TableShape>>, BinlogError> {
    let asking = async {
        let mut conn = connect(url, Purpose::Catalog).await?;
        Ok(table_shape(&mut conn, table).await?.map(Arc::new))
    };
    answered(url, asking).await
}

/// Opens the binlog where a prepared transaction begins. `None` if it is not there any more.
///
/// `known` is where it was met; otherwise the files are searched backwards from `commit`, since one identifier may be used
/// again and again and the last PREPARE before the COMMIT counts.
pub(crate) async fn open_prepared(
    url: ServerUrl,
    source: Source,
    xid: Xid,
    known: Option<FilePlace>,
    commit: FilePlace,
    timeouts: Timeouts,
) -> Result<Option<Dump>, BinlogError> {
    let place = match known {
        Some(place) => Some(place),
        None => find_prepared(&url, &source, &xid, &commit, timeouts).await?,
    };
    match place {
        Some(place) => answered(&url, Dump::from_place(&url, &source, &place, timeouts)).await.map(Some),
        None => Ok(None),
    }
}

async fn find_prepared(
    url: &ServerUrl,
    source: &Source,
    xid: &Xid,
    commit: &FilePlace,
    timeouts: Timeouts,
) -> Result<Option<FilePlace>, BinlogError> {
    let asking = async {
        let mut conn = connect(url, Purpose::Catalog).await?;
        source.files(&mut conn).await
    };
    let files = answered(url, asking).await?;
    let Some(last) = files.iter().position(|(name, _)| *name == commit.file) else { return Ok(None) };
    for (file, _) in files[..=last].iter().rev() {
        let end = if *file == commit.file { commit.offset } else { u64::MAX };
        let place = last_prepare_in(url, source, xid, file, end, timeouts).await?;
        if place.is_some() {
            return Ok(place);
        }
    }
    Ok(None)
}

/// The last transaction in a file, before `end`, that prepares `xid`.
async fn last_prepare_in(
    url: &ServerUrl,
    source: &Source,
    xid: &Xid,
    file: &str,
    end: u64,
    timeouts: Timeouts,
) -> Result<Option<FilePlace>, BinlogError> {
    let from = FilePlace { file: file.to_owned(), offset: 4 };
    let mut dump = answered(url, Dump::from_place(url, source, &from, timeouts)).await?;
    let mut groups = GroupReader::default();
    let (mut began, mut found) = (None, None);
    loop {
        let frame = match dump.next().await {
            Ok(frame) => frame,
            Err(BinlogError::Ended { .. }) => return Ok(found),
            Err(error) => return Err(error),
        };
        if dump.file != file || frame.begin >= end {
            return Ok(found);
        }
        let group: Option<Group> = groups.read(&frame.event);
        if group.is_some() {
            began = Some(FilePlace { file: file.to_owned(), offset: frame.begin });
        } else if frame.event_type() == event_type::XA_PREPARE
            && matches!(Xid::from_prepare_event(frame.body()), Some((false, prepared)) if prepared == *xid)
        {
            found = began.clone();
        }
    }
}
