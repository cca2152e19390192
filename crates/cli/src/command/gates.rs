//! What the gates of a change are judged by.

use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use crossfade_catalog::check::{Finding, Severity, check};
use crossfade_config::Settings;
use crossfade_control::gate::group::Crossing;
use crossfade_control::gate::{ComparedTable, DirectionSeen, FenceSeen, Seen, VerificationSeen};
use crossfade_control::{Change, Gate, fence_seen, gates, name, prepared};
use crossfade_message::{CopyState, Store, Wish};
use crossfade_model::{Direction, Side};
use crossfade_server::{Status, StreamLine};
use crossfade_verify::TableReport;

use super::check::store_findings;
use super::status::read;
use super::{add_row, new_table, print_table, rounds};
use crate::failure::with_causes;
use crate::output::out;
use crate::pair::{Pair, stream_of};

/// How long gates are looked at again that may open by themselves.
const PATIENCE: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What takes a while to be looked at, and does not change within moments.
struct Slow {
    fence: FenceSeen,
    prepared: Result<u64, String>,
    check_errors: Result<Vec<String>, String>,
    /// Tables as the old side names them.
    synced: Result<Vec<String>, String>,
    /// Where groups of tables change sides one after the other.
    crossings: Result<Vec<Crossing>, String>,
    /// The group has some, or where none is named, some are in no group.
    has_tables: bool,
}

/// Looks at every gate; `own` is the asker's own run. Those that may open by themselves are given some time.
pub async fn look(settings: &Settings, store: &Store, change: Change, own: Option<u64>) -> anyhow::Result<Vec<Gate>> {
    let since = Instant::now();
    let slow = look_slowly(settings, change, store.group()).await;
    loop {
        let seen = look_once(settings, store, own, &slow).await?;
        let mut found = gates(change, &seen, &settings.cutover);
        found.extend(super::entity::entities_gate(settings, store, change).await?);
        found.extend(super::groups::gates(settings, store, change, &slow.crossings).await?);
        if !may_all_open(&found) || since.elapsed() >= PATIENCE {
            return Ok(found);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Something is closed, and may open by itself.
fn may_all_open(gates: &[Gate]) -> bool {
    let mut closed = gates.iter().filter(|gate| !gate.is_open()).peekable();
    closed.peek().is_some() && closed.all(|gate| gate.passes)
}

async fn look_slowly(settings: &Settings, change: Change, group: Option<&str>) -> Slow {
    // Where nobody is moved, nothing of this is asked; and who leaves need not be able to stay.
    if matches!(change, Change::Close | Change::Abort) {
        return Slow {
            fence: FenceSeen::FlagAlone,
            prepared: Ok(0),
            check_errors: Ok(Vec::new()),
            synced: Ok(Vec::new()),
            crossings: Ok(Vec::new()),
            has_tables: true,
        };
    }
    let checking = async { check(settings, store_findings(settings).await).await };
    let counting = async {
        match change.leaves() {
            Some(side) => prepared(settings, side).await.map_err(|error| with_causes(&error.into())),
            None => Ok(0),
        }
    };
    let naming = async {
        // Who goes back is not asked for a comparison, and without groups for nothing else.
        if !change.is_compared() && settings.groups().is_empty() {
            return Ok((Vec::new(), Vec::new(), true));
        }
        let pair = Pair::read(Arc::new(settings.clone())).await.map_err(|error| with_causes(&error))?;
        let synced = pair.mappings(Direction::Forward).iter().map(|mapping| mapping.identity.to_string());
        let has_tables = pair.groups(Side::Old).values().any(|of| of.as_deref() == group);
        Ok((synced.collect(), pair.crossings(), has_tables))
    };
    let (report, fence, prepared, named) = tokio::join!(checking, fence_seen(settings, change), counting, naming);
    let errors = report.findings.iter().filter(|finding| finding.severity == Severity::Error);
    let check_errors = Ok(errors.map(shown).collect());
    let (synced, crossings, has_tables) = match named {
        Ok((synced, crossings, has_tables)) => (Ok(synced), Ok(crossings), has_tables),
        Err(why) => (Err(String::clone(&why)), Err(why), true),
    };
    Slow { fence, prepared, check_errors, synced, crossings, has_tables }
}

fn shown(finding: &Finding) -> String {
    let side = finding.side.map_or(String::new(), |side| format!("{side} "));
    format!("{side}{}: {}", finding.subject, finding.message)
}

async fn look_once(settings: &Settings, store: &Store, own: Option<u64>, slow: &Slow) -> anyhow::Result<Seen> {
    let status = read(settings, store).await?;
    let mut sides = Vec::new();
    for direction in [Direction::Forward, Direction::Reverse] {
        sides.push(direction_seen(&status, direction, store.wish(direction).await?));
    }
    let [forward, reverse] = &sides[..] else { anyhow::bail!("a pair has two directions") };
    let open = store.open_switch_run().await?.map(|(run, _)| run).filter(|run| Some(run.id) != own);
    Ok(Seen {
        group: store.group().map(str::to_owned),
        has_tables: slow.has_tables,
        flag: store.flag().await?,
        other_run: open.map(|run| name(&run)),
        forward: forward.clone(),
        reverse: reverse.clone(),
        verification: match &slow.synced {
            Ok(synced) => verification_seen(store, synced).await.map_err(|error| with_causes(&error)),
            Err(why) => Err(why.clone()),
        },
        uncopied: uncopied(store).await.map_err(|error| with_causes(&error)),
        instances: store.flag_instances().await?.len(),
        fence: slow.fence.clone(),
        prepared: slow.prepared.clone(),
        check_errors: slow.check_errors.clone(),
    })
}

fn direction_seen(status: &Status, direction: Direction, wish: Option<Wish>) -> DirectionSeen {
    let stream = stream_of(direction);
    let line: Option<&StreamLine> = status.streams.iter().find(|line| line.stream == stream.as_str());
    let unproved = |line: &StreamLine| match (&line.tag.open, line.tag.proved_at) {
        (Some(open), _) => Some(open.clone()),
        (None, None) => Some("it was never proved".to_owned()),
        (None, Some(_)) => None,
    };
    DirectionSeen {
        direction,
        is_served: line.is_some_and(|line| line.holder.is_some()),
        state: line.map_or("unknown", |line| &line.state).to_owned(),
        is_green: line.is_some_and(|line| line.health().is_green()),
        reason: line.and_then(|line| line.reason.clone()),
        applies: wish.is_some_and(|wish| wish.apply),
        lag: line.and_then(|line| line.lag_seconds).map(Duration::from_secs_f64),
        refused: line.map_or(0, |line| line.open_failures),
        held: line.map_or(0, |line| line.held),
        unproved: line.map_or(Some("it never ran".to_owned()), unproved),
    }
}

async fn verification_seen(store: &Store, synced: &[String]) -> anyhow::Result<Option<VerificationSeen>> {
    let Some(last) = rounds::last_whole(store).await? else { return Ok(None) };
    let reports = rounds::reports(&last);
    let age = (Utc::now() - last.begun_at).to_std().unwrap_or_default();
    let mut seen = VerificationSeen::new(age, reports.iter().map(compared_table), synced);
    let copies = store.copies().await?.into_iter();
    let copied = copies.filter(|copy| copy.copied_at.is_some_and(|at| at > last.begun_at));
    seen.copied = copied.map(|copy| copy.table.to_string()).filter(|table| synced.contains(table)).collect();
    Ok(Some(seen))
}

/// What a gate is judged by of a table that was compared.
pub fn compared_table(report: &TableReport) -> ComparedTable {
    ComparedTable {
        table: report.table.clone(),
        mismatch_ppm: report.percent * 10_000.0,
        mismatches: report.mismatches(),
        unconfirmed: report.unconfirmed,
        is_skipped: report.skipped.is_some(),
    }
}

async fn uncopied(store: &Store) -> anyhow::Result<Vec<String>> {
    let copies = store.copies().await?;
    let matter = copies.iter().filter_map(|copy| match (copy.state, copy.refused) {
        (CopyState::Copied, 0) => None,
        (CopyState::Copied, refused) => Some(format!("{refused} rows of {} are refused", copy.table)),
        (state, _) => Some(format!("{} is {}", copy.table, state.as_str())),
    });
    Ok(matter.collect())
}

/// Each with what would open it.
pub fn print(gates: &[Gate]) {
    let mut table = new_table(&["gate", "state", "seen"]);
    for gate in gates {
        add_row(&mut table, [gate.name, gate.state.as_str(), &gate.why]);
    }
    print_table(&table);
    for gate in gates {
        if let Some(remedy) = &gate.remedy {
            out!("{}: {remedy}", gate.name);
        }
    }
}
