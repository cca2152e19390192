//! A side's server as the steps ask it.

use std::time::Duration;

use crossfade_catalog::{Purpose, ServerFacts, Servers};
use crossfade_config::Settings;
use crossfade_model::{Direction, Side, StreamId};
use mysql_async::Conn;

use crate::ControlError;

/// What takes a server longer is not answered any more.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// The server of a side that takes writes.
pub(crate) async fn connect(settings: &Settings, side: Side, purpose: Purpose) -> Result<Conn, ControlError> {
    let servers = Servers::new(settings.side(side).urls());
    let connected = in_time(side, servers.connect(purpose)).await?;
    connected.map_err(|source| ControlError::Connect { side, source })
}

/// With what is known of it.
pub(crate) async fn connect_known(settings: &Settings, side: Side) -> Result<(Conn, ServerFacts), ControlError> {
    let mut conn = connect(settings, side, Purpose::Catalog).await?;
    let facts = in_time(side, ServerFacts::read(&mut conn)).await?;
    Ok((conn, facts.map_err(|source| ControlError::Connect { side, source })?))
}

/// Gives up a server that does not answer. The connection must not be used again.
pub(crate) async fn in_time<T>(side: Side, asked: impl Future<Output = T>) -> Result<T, ControlError> {
    tokio::time::timeout(ANSWER_LIMIT, asked).await.map_err(|_| ControlError::Silent { side })
}

/// For `map_err`: what a side was asked to do.
pub(crate) fn during(side: Side, what: &'static str) -> impl Fn(mysql_async::Error) -> ControlError {
    move |source| ControlError::Server { side, what, source }
}

/// The stream of a direction; a side is one node here, named after the side.
pub(crate) fn stream_of(direction: Direction) -> StreamId {
    StreamId::new(direction, direction.source().as_str())
}

/// The direction that writes to a side.
pub(crate) fn direction_to(side: Side) -> Direction {
    match side {
        Side::New => Direction::Forward,
        Side::Old => Direction::Reverse,
    }
}

/// What is written to a side is tagged as its.
pub(crate) fn stream_to(side: Side) -> StreamId {
    stream_of(direction_to(side))
}
