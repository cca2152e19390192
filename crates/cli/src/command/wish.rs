//! `crossfade start|stop`: what a direction is wished to do. Its process obeys within a second, also after a restart.

use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_config::Settings;
use crossfade_message::{Store, Wish};
use crossfade_model::Direction;
use crossfade_server::StreamLine;

use super::status::read;
use super::{open_known_store, refuse_ended};
use crate::pair::stream_of;

/// A process that has not obeyed by then is in the middle of something.
const OBEYED_WITHIN: Duration = Duration::from_secs(10);

const ASK_EVERY: Duration = Duration::from_millis(100);

pub async fn start(settings: &Settings, direction: Direction) -> anyhow::Result<()> {
    set(settings, direction, Wish::RUN, "started").await?;
    eprintln!(
        "{direction}: is to run; its process, `crossfade sync {direction}`, obeys within a second or when it starts"
    );
    Ok(())
}

/// Returns when nothing of the direction is under way any more, as far as its process says so.
pub async fn stop(settings: &Settings, direction: Direction, capture_too: bool) -> anyhow::Result<()> {
    let (wish, word) = if capture_too { (Wish::OFF, "declared off") } else { (Wish::CAPTURE_ONLY, "stopped") };
    let store = set(settings, direction, wish, word).await?;
    let obeyed = until_obeyed(settings, &store, direction).await?;
    if let Some(line) = obeyed {
        let reason = line.reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
        eprintln!(
            "{direction}: has not come to rest within {} s: it is {}{reason}. It ends what it has begun and begins nothing \
             new; `crossfade status` shows when",
            OBEYED_WITHIN.as_secs(),
            line.state
        );
    } else if capture_too {
        eprintln!(
            "{direction}: declared off until `crossfade start {direction}`; nothing waits for it, so users must not write on \
             {} meanwhile: who then wins over the same row may differ between the sides",
            direction.source()
        );
    } else {
        eprintln!("{direction}: applying rests until `crossfade start {direction}`; its process goes on capturing");
    }
    Ok(())
}

/// `None` once the direction rests, or nobody runs it; else how it is after a while.
async fn until_obeyed(settings: &Settings, store: &Store, direction: Direction) -> anyhow::Result<Option<StreamLine>> {
    let (asked, stream) = (Instant::now(), stream_of(direction));
    loop {
        let status = read(settings, store).await?;
        let line = status.streams.into_iter().find(|line| line.stream == stream.as_str());
        let line = line.with_context(|| format!("the store knows no stream of {direction}"))?;
        if line.holder.is_none() || matches!(line.state.as_str(), "paused" | "off") {
            return Ok(None);
        }
        if asked.elapsed() >= OBEYED_WITHIN {
            return Ok(Some(line));
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

async fn set(settings: &Settings, direction: Direction, wish: Wish, word: &str) -> anyhow::Result<Store> {
    let store = open_known_store(settings).await?;
    refuse_ended(&store).await?;
    store.set_wish(direction, wish).await?;
    store.journal("wish", &format!("{direction} was {word}")).await?;
    Ok(store)
}
