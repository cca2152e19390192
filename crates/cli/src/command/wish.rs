//! `crossfade start|stop`: what a direction is wished to do. Its process obeys within a second, also after a restart.

use crossfade_config::Settings;
use crossfade_message::Wish;
use crossfade_model::Direction;

use super::open_store;

pub async fn start(settings: &Settings, direction: Direction) -> anyhow::Result<()> {
    set(settings, direction, Wish::RUN, "started").await?;
    eprintln!("{direction}: wished to run; `crossfade sync {direction}` obeys within a second");
    Ok(())
}

pub async fn stop(settings: &Settings, direction: Direction, capture_too: bool) -> anyhow::Result<()> {
    if capture_too {
        set(settings, direction, Wish::OFF, "declared off").await?;
        eprintln!("{direction}: declared off; nothing is captured, and nothing waits for it");
    } else {
        set(settings, direction, Wish::CAPTURE_ONLY, "stopped").await?;
        eprintln!("{direction}: applying stops; capture goes on, so nothing is missed");
    }
    Ok(())
}

async fn set(settings: &Settings, direction: Direction, wish: Wish, word: &str) -> anyhow::Result<()> {
    let store = open_store(settings);
    store.version_check().await?;
    store.set_wish(direction, wish).await?;
    store.journal("wish", &format!("{direction} was {word}")).await?;
    Ok(())
}
