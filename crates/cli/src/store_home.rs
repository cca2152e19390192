//! A store that is on the new side is where that side is written to: found at the start, followed from then on, also by who
//! only stands by or looks.

use std::convert::Infallible;
use std::time::Duration;

use anyhow::Context;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::Store;

const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Names the server that has the store now.
pub async fn find(settings: &mut Settings) -> anyhow::Result<()> {
    let servers = Servers::new(settings.new.urls());
    if settings.store.url.is_some() || !servers.are_several() {
        return Ok(());
    }
    let primary = servers.primary().await.context("the store cannot be found among the servers of the new side")?;
    settings.store.url = Some(servers.urls()[primary].clone());
    Ok(())
}

/// Runs something as long as it takes, with a store that is followed meanwhile.
pub async fn followed<T>(settings: &Settings, store: &Store, run: impl Future<Output = T>) -> T {
    tokio::select! {
        never = follow(settings, store) => match never {},
        ended = run => ended,
    }
}

async fn follow(settings: &Settings, store: &Store) -> Infallible {
    let servers = Servers::new(settings.new.urls());
    let mut home = settings.store_url().clone();
    if !servers.are_several() || !servers.urls().iter().any(|url| url.endpoint == home.endpoint) {
        return std::future::pending().await;
    }
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        // While nobody takes writes, or nobody can say who should, the store is away.
        let Ok(primary) = servers.primary().await else { continue };
        let url = &servers.urls()[primary];
        if url.endpoint != home.endpoint {
            tracing::info!(server = %url.address(), "the store is on another server now");
            store.move_to(url);
            home = url.clone();
        }
    }
}
