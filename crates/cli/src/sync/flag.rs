//! The read-write flag as a sync process has a part in it: it writes the flag on its target's node, and sees to it that users are
//! not kept from writing by a tool that has died.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_config::Settings;
use crossfade_control::entity::finish_abandoned;
use crossfade_control::{ControlError, mirror_or_adopt, release_abandoned};
use crossfade_message::Store;
use crossfade_model::Direction;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::lease::is_dead;
use crate::failure::with_causes;

const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A tool may have written a later version there before the store was restored to the one that this process knows.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(15);

pub struct Following {
    settings: Arc<Settings>,
    store: Store,
    direction: Direction,
    holder: String,
    /// By the flag's key: the version that the target's node has, and when it was found there.
    mirrored: HashMap<String, (u64, Instant)>,
}

impl Following {
    pub fn new(settings: Arc<Settings>, store: &Store, direction: Direction, holder: &str) -> Following {
        Following { settings, store: store.clone(), direction, holder: holder.to_owned(), mirrored: HashMap::new() }
    }

    /// Follows the flag until `running` ends, or the migration; tells which change of sides is under way.
    pub async fn run(mut self, switch: watch::Sender<Option<u64>>, running: CancellationToken) -> anyhow::Result<()> {
        let following = async {
            loop {
                match self.look(&switch).await {
                    Ok(None) => {}
                    Ok(Some(word)) => return tracing::info!("{word}: nothing is left to be done"),
                    Err(error) => {
                        let error = with_causes(&error.into());
                        tracing::debug!(error, "the flag cannot be followed");
                    }
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
        };
        running.run_until_cancelled(following).await;
        Ok(())
    }

    /// Gives that the migration is over, where it is.
    async fn look(&mut self, switch: &watch::Sender<Option<u64>>) -> Result<Option<String>, ControlError> {
        // First: nothing is to be written any more on a side that is left.
        if let Some(word) = self.store.end_word().await? {
            return Ok(Some(word));
        }
        let open = self.store.open_switch_run().await?;
        let run = open.map(|(run, _)| run.id);
        switch.send_if_modified(|known| std::mem::replace(known, run) != run);
        // First: the side that is to take writes again may be away.
        // Groups before the pair: taking over its flag raises their versions, and with that what a node has looks old.
        let mut groups = self.store.groups().await?;
        groups.extend(self.settings.groups().into_iter().map(str::to_owned));
        for group in &groups {
            self.mirror(Some(group)).await?;
        }
        self.mirror(None).await?;
        if let Some(done) = release_abandoned(&self.settings, &self.store, &self.holder, is_dead).await? {
            tracing::warn!("{done}");
        }
        if let Some(done) = finish_abandoned(&self.settings, &self.store, &self.holder, is_dead).await? {
            tracing::warn!("{done}");
        }
        Ok(None)
    }

    async fn mirror(&mut self, group: Option<&str>) -> Result<(), ControlError> {
        let store = self.store.of_group(group);
        // This also ends a fence whose time is over.
        let flag = store.flag().await?;
        let is_known = |(version, at): &(u64, Instant)| *version == flag.version && at.elapsed() < LOOK_AGAIN_AFTER;
        if !self.mirrored.get(store.flag_key()).is_some_and(is_known) {
            let mirrored = mirror_or_adopt(&self.settings, &store, self.direction.target(), flag).await?;
            self.mirrored.insert(store.flag_key().to_owned(), (mirrored.version, Instant::now()));
        }
        Ok(())
    }
}
