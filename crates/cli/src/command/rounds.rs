//! What `status` tells of comparing in the background.

use std::time::Duration;

use chrono::Utc;
use crossfade_config::Settings;
use crossfade_message::{Comparisons, Store, StoreError, Verification};
use crossfade_server::{RoundLine, VerifyLine};
use crossfade_verify::TableReport;

use crate::output::out;

/// What the store knows of the rounds.
pub async fn read(settings: &Settings, store: &Store) -> Result<VerifyLine, StoreError> {
    let (wish, verify) = (store.verify_wish().await?, &settings.verify);
    let on = wish.map_or(verify.continuous, |wish| wish.on);
    let runs = wish.map_or(verify.continuous || verify.after_backfill, |wish| wish.on);
    let rounds: Vec<RoundLine> = store.verifications(Comparisons::Rounds, 2).await?.iter().map(line).collect();
    let running = rounds.first().filter(|round| runs && round.ended_at.is_none()).cloned();
    Ok(VerifyLine { on, running, last: rounds.into_iter().find(|round| round.ended_at.is_some()) })
}

fn line(round: &Verification) -> RoundLine {
    let reports = reports(round);
    let sum = |of: fn(&TableReport) -> u64| reports.iter().map(of).sum();
    RoundLine {
        verification: round.id,
        begun_at: round.begun_at,
        ended_at: round.ended_at,
        tables: round.tables.map_or(0, u64::from),
        tables_done: reports.len() as u64,
        rows: sum(TableReport::rows),
        differences: sum(TableReport::mismatches),
        unconfirmed: sum(|report| report.unconfirmed),
    }
}

/// What a round has found of the tables that are done. What another version has written is not known.
pub fn reports(round: &Verification) -> Vec<TableReport> {
    let kept = round.reports.as_ref().and_then(|kept| serde_json::from_str(kept.get()).ok());
    kept.unwrap_or_default()
}

/// The last comparison of all rows of all tables that has ended, by whomever it was asked for.
pub async fn last_whole(store: &Store) -> Result<Option<Verification>, StoreError> {
    let mut all = store.verifications(Comparisons::Rounds, 2).await?;
    all.extend(store.verifications(Comparisons::Asked, 20).await?.into_iter().filter(|one| one.asked.is_empty()));
    Ok(all.into_iter().filter(|one| one.ended_at.is_some()).max_by_key(|one| one.begun_at))
}

pub fn print(verify: &VerifyLine) {
    if !verify.on && verify.last.is_none() && verify.running.is_none() {
        return;
    }
    let mut parts = vec![match (&verify.running, verify.on) {
        (Some(round), _) => {
            format!("round {}, {} of {} tables", round.verification, round.tables_done, round.tables)
        }
        (None, true) => "waits for the next round".to_owned(),
        (None, false) => "off".to_owned(),
    }];
    if let Some(last) = &verify.last {
        let ago = last.ended_at.map_or(0, |at| (Utc::now() - at).num_seconds().max(0).unsigned_abs());
        let ago = humantime::format_duration(Duration::from_secs(ago));
        let unconfirmed = match last.unconfirmed {
            0 => String::new(),
            rows => format!(", {rows} could not be confirmed"),
        };
        let (rows, differences) = (last.rows, last.differences);
        parts.push(format!("the last ended {ago} ago: {rows} rows, {differences} differ{unconfirmed}"));
    }
    out!("comparing in the background: {}", parts.join("; "));
    if verify.last.as_ref().is_some_and(|last| last.differences > 0) {
        out!("`crossfade verify show --continuous` shows the rows that differ");
    }
}
