//! Which entities a command is about.

use crossfade_catalog::Purpose;
use crossfade_config::Settings;
use crossfade_message::Store;
use crossfade_model::{EntityKey, Side};
use crossfade_rules::EntityState;
use mysql_async::Conn;
use sha2::{Digest, Sha256};

use super::MoveArgs;
use super::rows::Rows;
use crate::pair::connect_side;

/// So many are looked at together.
pub const PAGE: u32 = 500;

/// Gives entities page by page.
pub struct Selection<'s> {
    args: &'s MoveArgs,
    to: Side,
    store: &'s Store,
    rows: &'s Rows<'s>,
    /// To the side that they leave.
    conn: Conn,
    after: Option<EntityKey>,
    ended: bool,
    /// How many may still be asked for.
    left: u64,
}

impl<'s> Selection<'s> {
    /// `asked`: so many this run has asked for before.
    pub async fn new(
        settings: &Settings,
        store: &'s Store,
        rows: &'s Rows<'s>,
        (to, args): (Side, &'s MoveArgs),
        asked: u64,
    ) -> anyhow::Result<Selection<'s>> {
        let conn = connect_side(settings, to.opposite(), Purpose::Catalog).await?;
        let left = match (args.percent, args.limit) {
            (Some(share), _) => missing(store, to, share.0).await?,
            (None, Some(limit)) => limit,
            (None, None) => u64::MAX,
        };
        let left = if left == u64::MAX { left } else { left.saturating_sub(asked) };
        Ok(Selection { args, to, store, rows, conn, after: None, ended: false, left })
    }

    /// Of a page that was given, so many were taken.
    pub fn took(&mut self, count: u64) {
        self.left = self.left.saturating_sub(count);
    }

    /// The next ones, made known where they were not; none when that was all. `makes_known`: where they are looked for on a side.
    pub async fn next(&mut self, makes_known: bool) -> anyhow::Result<Vec<EntityKey>> {
        if self.ended || self.left == 0 {
            return Ok(Vec::new());
        }
        // A spread selection has no order to go on in: it is taken as a whole.
        let page = if self.args.percent.is_some() { u64::from(u32::MAX) } else { PAGE.into() };
        let most = page.min(self.left) as u32;
        let page = self.page(most).await?;
        if makes_known && self.is_looked_for() {
            self.store.add_entities(&page, true).await?;
        }
        Ok(page)
    }

    fn is_looked_for(&self) -> bool {
        !self.args.ids.is_empty() || self.args.condition.is_some() || self.args.rest
    }

    async fn page(&mut self, most: u32) -> anyhow::Result<Vec<EntityKey>> {
        if self.args.rest {
            self.ended = true;
            return Ok(vec![EntityKey::rest()]);
        }
        if !self.args.ids.is_empty() {
            self.ended = true;
            return match self.to {
                Side::New => self.rows.existing(&mut self.conn, &self.args.ids).await,
                // What is known of it counts: its rows may be gone there.
                Side::Old => Ok(self.args.ids.clone()),
            };
        }
        let page = if let Some(condition) = &self.args.condition {
            let side = self.to.opposite();
            self.rows.keys(&mut self.conn, side, Some(condition), self.after.as_ref(), most).await?
        } else {
            let states: &[EntityState] = match &self.args.state {
                Some(state) => std::slice::from_ref(state),
                None => &[EntityState::Eligible, EntityState::Requested, EntityState::Moved, EntityState::Returned],
            };
            let spread = self.args.percent.is_some();
            self.store.entities_to_move(self.to, states, spread, self.after.as_ref(), most).await?
        };
        self.ended = page.len() < most as usize || self.args.percent.is_some();
        self.after = page.last().cloned();
        Ok(page)
    }
}

/// How many must go to a side, so that it has this share of all that are known. Those without a row can go nowhere.
async fn missing(store: &Store, to: Side, percent: f64) -> anyhow::Result<u64> {
    let rest = store.rest_side().await?;
    let (mut all, mut there) = (0, 0);
    for (state, side, count) in store.entity_counts().await? {
        if state == EntityState::Identified {
            continue;
        }
        all += count;
        there += if side.unwrap_or(rest) == to { count } else { 0 };
    }
    Ok(wanted(all, percent).saturating_sub(there))
}

/// A share of all, rounded up.
fn wanted(all: u64, percent: f64) -> u64 {
    ((all as f64 * percent / 100.0).ceil() as u64).min(all)
}

/// By which the same command is known. What conditions and keys hold is not kept.
pub fn words(to: Side, args: &MoveArgs) -> String {
    let verb = if to == Side::New { "move" } else { "return" };
    let mut words = vec![verb.to_owned()];
    words.extend((!args.ids.is_empty()).then(|| format!("{} named", args.ids.len())));
    words.extend(args.condition.is_some().then(|| "--where …".to_owned()));
    words.extend(args.state.map(|state| format!("--state {state}")));
    words.extend(args.percent.map(|share| format!("--percent {}%", share.0)));
    words.extend(args.rest.then(|| "--rest".to_owned()));
    words.extend(args.all.then(|| "--all".to_owned()));
    words.extend(args.limit.map(|limit| format!("--limit {limit}")));
    let mut digest = Sha256::new();
    for key in &args.ids {
        digest.update(key.as_str());
        digest.update([0]);
    }
    digest.update(args.condition.as_deref().unwrap_or_default());
    let digest = digest.finalize();
    words.push(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect());
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_rounded_up_and_never_more_than_all() {
        assert_eq!([wanted(2_000, 5.0), wanted(3, 5.0), wanted(0, 5.0), wanted(7, 100.0)], [100, 1, 0, 7]);
    }
}
