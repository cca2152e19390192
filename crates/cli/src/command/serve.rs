//! `crossfade serve`: readiness, metrics, status, the flag and the side of each entity over HTTP.

use std::sync::Arc;
use std::time::Duration;

use crossfade_config::Settings;
use crossfade_message::{EntityAnswer, Flag, FlagInstance, Store, StoreError};
use crossfade_model::EntityKey;
use crossfade_server::{Ask, Entities, EntityStore, FlagStore, Flags, FlagsByGroup, View};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::status::read;
use super::{groups, open_known_store};
use crate::args::ServeArgs;
use crate::failure::with_causes;
use crate::store_home;

pub async fn run(settings: Arc<Settings>, args: &ServeArgs, stop: CancellationToken) -> anyhow::Result<()> {
    let store = open_known_store(&settings).await?;
    groups::know(&settings, &store).await?;
    let listener = crossfade_server::listen(args.listen.unwrap_or(settings.http.listen)).await?;
    let address = listener.local_addr()?;
    let entities = if settings.entity.is_some() { " /v1/entities/<id>" } else { "" };
    let groups: String = settings.groups().iter().map(|group| format!(" /groups/{group}/v1/flag")).collect();
    eprintln!("http://{address}: /healthz /readyz /metrics /v1/status /v1/flag{groups}{entities}");
    let (of_answers, home) = (settings.clone(), store.clone());
    let groups = std::iter::once(None).chain(settings.groups().into_iter().map(Some));
    let flags: FlagsByGroup = groups
        .map(|group| {
            let store = store.of_group(group);
            (group.map(str::to_owned), Flags::new(store.flag_key(), Arc::new(OfStore(store.clone()))))
        })
        .collect();
    let entities = settings.entity.as_ref().map(|entity| {
        let lease = entity.lease;
        Arc::new(EntitiesOfStore { store: store.clone(), lease }) as Arc<dyn EntityStore>
    });
    let entities = Entities::new(&settings.pair, entities);
    let ask: Ask = Arc::new(move || {
        let (settings, store) = (of_answers.clone(), store.clone());
        Box::pin(async move { read(&settings, &store).await.map_err(|error| with_causes(&error)) })
    });
    store_home::followed(&settings, &home, crossfade_server::serve(listener, View::new(ask), (flags, entities), stop))
        .await?;
    Ok(())
}

/// The flag as the store has it.
struct OfStore(Store);

impl FlagStore for OfStore {
    fn flag(&self) -> BoxFuture<'_, Result<Flag, String>> {
        async { self.0.flag().await.map_err(told) }.boxed()
    }

    fn acknowledge<'a>(&'a self, instance: &'a str, version: u64, ttl: Duration) -> BoxFuture<'a, Result<(), String>> {
        async move { self.0.acknowledge_flag(instance, version, ttl).await.map_err(told) }.boxed()
    }

    fn forget<'a>(&'a self, instance: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async { self.0.forget_instance(instance).await.map_err(told) }.boxed()
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<FlagInstance>, String>> {
        async { self.0.flag_instances().await.map_err(told) }.boxed()
    }
}

/// Who has authority over each entity, as the store has it.
struct EntitiesOfStore {
    store: Store,
    lease: Duration,
}

impl EntityStore for EntitiesOfStore {
    fn entity<'a>(&'a self, key: &'a EntityKey) -> BoxFuture<'a, Result<EntityAnswer, String>> {
        async move { self.store.entity_answer(key, self.lease).await.map_err(told) }.boxed()
    }
}

fn told(error: StoreError) -> String {
    with_causes(&error.into())
}
