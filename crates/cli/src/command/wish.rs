//! `crossfade start|stop`: what a direction is wished to do. Its process obeys within a second, also after a restart.

use crossfade_config::Settings;
use crossfade_message::Wish;
use crossfade_model::Direction;

use super::open_known_store;

pub async fn start(settings: &Settings, direction: Direction) -> anyhow::Result<()> {
    set(settings, direction, Wish::RUN, "started").await?;
    eprintln!(
        "{direction}: is to run; its process, `crossfade sync {direction}`, obeys within a second or when it starts"
    );
    Ok(())
}

pub async fn stop(settings: &Settings, direction: Direction, capture_too: bool) -> anyhow::Result<()> {
    if capture_too {
        set(settings, direction, Wish::OFF, "declared off").await?;
        eprintln!(
            "{direction}: declared off until `crossfade start {direction}`; nothing waits for it, so users must not write on \
             {} meanwhile: who then wins over the same row may differ between the sides",
            direction.source()
        );
    } else {
        set(settings, direction, Wish::CAPTURE_ONLY, "stopped").await?;
        eprintln!("{direction}: applying rests until `crossfade start {direction}`; its process goes on capturing");
    }
    Ok(())
}

async fn set(settings: &Settings, direction: Direction, wish: Wish, word: &str) -> anyhow::Result<()> {
    let store = open_known_store(settings).await?;
    store.set_wish(direction, wish).await?;
    store.journal("wish", &format!("{direction} was {word}")).await?;
    Ok(())
}
