//! What a tool that moves entities sees of the pair, and how it makes rows equal.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crossfade_catalog::Servers;
use crossfade_config::{EntitySettings, Settings};
use crossfade_control::entity::{EntitySight, Equality, Looked, MoveProgress, all_on, entity_gates};
use crossfade_control::{Cause, Change, Gate, name};
use crossfade_message::Store;
use crossfade_model::{Direction, EntityKey, Side};
use crossfade_throttle::Throttle;
use crossfade_verify::{
    Difference, Filter, Keeper, Options, PickedReport, Progress, Sides, TableReport, VerifyError, compare_picked,
};
use indicatif::{ProgressBar, ProgressStyle};

use super::rows::Rows;
use crate::args::RepairWinner;
use crate::command::verify::CHUNK_BYTES;
use crate::command::verify_repair::{self, Captured, Wanted};
use crate::pair::Pair;

/// How long both directions may take to pass a mark. A fence ends sooner.
const PATIENCE: Duration = Duration::from_secs(30);

/// Without a terminal, a line this often is enough.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub struct Eyes<'e> {
    pair: &'e Pair,
    entity: &'e EntitySettings,
    sides: Sides,
    options: Options,
    bar: ProgressBar,
    told: Mutex<Instant>,
}

impl<'e> Eyes<'e> {
    pub fn new(pair: &'e Pair, entity: &'e EntitySettings, store: &Store, throttle: Throttle) -> Eyes<'e> {
        let settings = &pair.settings;
        let sides = Sides {
            pair: settings.pair.clone(),
            old: Servers::new(settings.old.urls()),
            new: Servers::new(settings.new.urls()),
            store: store.clone(),
        };
        let options = Options {
            filter: Filter::default(),
            sample: None,
            chunk_time: Duration::from_millis(500),
            chunk_bytes: CHUNK_BYTES,
            share: 1.0,
            parallel: 1,
            throttle,
            patience: PATIENCE,
            keep_per_table: u64::MAX,
        };
        let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let bar = if is_terminal { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{wide_bar:.cyan/blue} {pos} of {len}  {msg}  {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Eyes { pair, entity, sides, options, bar, told: Mutex::new(Instant::now()) }
    }

    /// Nothing more is shown.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }

    /// The rows of these as they are on both sides.
    pub async fn compared(&self, keys: &[EntityKey]) -> anyhow::Result<PickedReport> {
        let rows = Rows::new(self.pair, self.entity).of(keys)?;
        Ok(compare_picked(&self.sides, &rows, PATIENCE).await?)
    }

    /// All rows of all tables of entities, as `verify` compares them; nothing is mended.
    async fn all_compared(&self) -> anyhow::Result<Equality> {
        let tables = Rows::new(self.pair, self.entity).pairs()?;
        let options = Options { keep_per_table: 0, ..self.options.clone() };
        let progress = Progress::default();
        let reports = crossfade_verify::compare(&self.sides, &tables, &options, &progress, Arc::new(Nobody)).await?;
        let rows = reports.iter().map(TableReport::rows).sum();
        let differs = |report: &&TableReport| report.mismatches() + report.unconfirmed > 0;
        let unlike: Vec<String> = reports
            .iter()
            .filter(differs)
            .map(|report| format!("{} rows of {} differ", report.mismatches() + report.unconfirmed, report.table))
            .collect();
        let unlike = (!unlike.is_empty()).then(|| format!("{}: `crossfade verify` shows them", unlike.join("; ")));
        Ok(Equality { rows, unlike })
    }

    async fn made_equal(&self, keys: &[EntityKey], to: Side) -> anyhow::Result<Equality> {
        if keys.iter().any(EntityKey::is_rest) {
            return self.all_compared().await;
        }
        // They are looked up together, however many pass: others wait for them.
        let rows = keys.len() as u64;
        self.options.throttle.until_rows_may_pass(rows).await.used(rows);
        // What users of the other side do from here on is newer than what is found.
        let captured = Captured::now(&self.sides.store).await?;
        let found = self.compared(keys).await?;
        if found.is_equal() || found.differences.is_empty() {
            return Ok(equality(&found, &[]));
        }
        let tables = Rows::new(self.pair, self.entity).pairs()?;
        let winner = if to == Side::New { RepairWinner::OldWins } else { RepairWinner::NewWins };
        let wanted = Wanted { winner, dry_run: false };
        let differences = (found.differences, captured);
        let report = verify_repair::run(self.pair, &self.sides, &tables, &self.options, differences, wanted).await?;
        Ok(equality(&self.compared(keys).await?, &report.reasons))
    }
}

/// Keeps no difference.
struct Nobody;

impl Keeper for Nobody {
    fn keep(&self, _: Difference) -> Pin<Box<dyn Future<Output = Result<(), VerifyError>> + Send + '_>> {
        Box::pin(async { Ok(()) })
    }
}

/// `reasons`: why rows could not be made equal.
fn equality(report: &PickedReport, reasons: &[String]) -> Equality {
    let rows = report.tables.iter().map(|table| table.rows_old.max(table.rows_new)).sum();
    if report.is_equal() {
        return Equality { rows, unlike: None };
    }
    let mut parts: Vec<String> = Vec::new();
    for table in report.tables.iter().filter(|table| table.different + table.unconfirmed > 0) {
        let (name, different, unconfirmed) = (&table.table, table.different, table.unconfirmed);
        parts.extend((different > 0).then(|| format!("{different} rows of {name} are not the same on both sides")));
        parts.extend((unconfirmed > 0).then(|| format!("{unconfirmed} rows of {name} may still be under way")));
    }
    parts.extend(reasons.iter().cloned());
    parts.extend(report.unconfirmed_reason.clone());
    Equality { rows, unlike: Some(parts.join("; ")) }
}

/// Looks at what must hold while entities move.
pub async fn gates(settings: &Settings, store: &Store) -> anyhow::Result<Vec<Gate>> {
    let leases = store.leases().await?;
    let mut directions = Vec::new();
    for direction in [Direction::Forward, Direction::Reverse] {
        let is_served = leases.iter().any(|lease| lease.live && lease.subject == direction.as_str());
        directions.push((is_served, store.wish(direction).await?));
    }
    let [forward, reverse] = directions[..] else { anyhow::bail!("{} has two directions", settings.pair) };
    let open = store.open_switch_run().await?;
    let looked = Looked {
        flag: store.flag().await?,
        other_run: open.map(|(run, _)| name(&run)),
        directions: [forward, reverse],
    };
    Ok(entity_gates(&looked))
}

/// For a change of the whole pair, where entities move by themselves: it takes none of them along.
pub async fn entities_gate(settings: &Settings, store: &Store, change: Change) -> anyhow::Result<Option<Gate>> {
    let side = match change {
        Change::Cutover | Change::Finish => Side::New,
        Change::Close | Change::Abort => Side::Old,
        // Both sides go on, and each entity where it is.
        Change::Open | Change::Rollback => return Ok(None),
    };
    let Some(entity) = &settings.entity else { return Ok(None) };
    let rest = store.rest_side().await?;
    let counts = store.entity_counts().await?;
    let other = Some(side.opposite());
    let elsewhere = counts.iter().filter(|(_, on, _)| *on == other).map(|(_, _, count)| count).sum();
    let at_work = store.entities_at_work().await?;
    Ok(Some(all_on(side, &entity.name, rest, (elsewhere, at_work))))
}

impl EntitySight for Eyes<'_> {
    async fn gates(&self) -> Result<Vec<Gate>, Cause> {
        Ok(gates(&self.pair.settings, &self.sides.store).await?)
    }

    async fn copy(&self, keys: &[EntityKey], to: Side) -> Result<Equality, Cause> {
        Ok(self.made_equal(keys, to).await?)
    }

    async fn compare(&self, keys: &[EntityKey]) -> Result<Equality, Cause> {
        Ok(equality(&self.compared(keys).await?, &[]))
    }

    fn show(&self, progress: &MoveProgress) {
        let done = progress.moved + progress.failed;
        self.bar.set_length(done + progress.left);
        self.bar.set_position(done);
        self.bar.set_message(format!("{} failed, {}", progress.failed, progress.doing));
        let mut told = self.told.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.bar.is_hidden() && told.elapsed() >= TELL_EVERY {
            *told = Instant::now();
            let MoveProgress { moved, failed, left, doing } = progress;
            tracing::info!(moved, failed, left, doing, "moving");
        }
    }
}
