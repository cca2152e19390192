//! `crossfade serve`: readiness, metrics and status over HTTP.

use std::sync::Arc;

use crossfade_config::Settings;
use crossfade_server::{Ask, View};
use tokio_util::sync::CancellationToken;

use super::open_known_store;
use super::status::read;
use crate::args::ServeArgs;
use crate::failure::with_causes;
use crate::store_home;

pub async fn run(settings: Arc<Settings>, args: &ServeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let store = open_known_store(&settings).await?;
    let listener = crossfade_server::listen(args.listen.unwrap_or(settings.http.listen)).await?;
    let address = listener.local_addr()?;
    eprintln!("http://{address}: /healthz /readyz /metrics /v1/status");
    let (of_answers, home) = (settings.clone(), store.clone());
    let ask: Ask = Arc::new(move || {
        let (settings, store) = (of_answers.clone(), store.clone());
        Box::pin(async move { read(&settings, &store).await.map_err(|error| with_causes(&error)) })
    });
    store_home::followed(&settings, &home, crossfade_server::serve(listener, View::new(ask), stop)).await?;
    Ok(())
}
