//! `crossfade init`: the crossfade schemas on both sides and in the store, and the start mark. Repeatable.

use std::sync::Arc;

use anyhow::Context;
use crossfade_applier::beat;
use crossfade_binlog::BinlogError;
use crossfade_catalog::{Purpose, Servers};
use crossfade_config::Settings;
use crossfade_message::{COLUMN_EXISTS, MIGRATION_LOCK, StoreError, node_statements};
use crossfade_model::{Direction, Position, Side};
use mysql_async::prelude::Queryable;
use serde::Serialize;

use super::{open_store, print_json, refuse_ended};
use crate::args::InitArgs;
use crate::failure::{Failure, Kind, with_causes};
use crate::meeting::Source;
use crate::output::out;
use crate::pair::{Pair, connect_side, stream_of};

/// The name of the mark that a migration starts from.
const START_MARK: &str = "start";

/// The heartbeat row by which a replica's position is found, and by which a node knows the pair.
const HEARTBEAT_WRITER: &str = "init";

#[derive(Serialize)]
struct Initialised {
    pair: String,
    tables: usize,
    rules: String,
    old_position: String,
    new_position: String,
    /// Whether this call took the start mark, or an earlier one had.
    mark_taken: bool,
}

pub async fn run(settings: Arc<Settings>, args: &InitArgs) -> anyhow::Result<()> {
    let store = open_store(&settings);
    if store.version_check().await.is_ok() {
        refuse_ended(&store).await?;
    }
    let pair = Pair::read(settings.clone()).await?;
    for side in [Side::Old, Side::New] {
        create_node_schema(&settings, side).await?;
    }
    store.migrate().await?;
    // The reverse position first: what is written on new meanwhile is then read, never missed.
    let new_position = position(&settings, Side::New).await?;
    let old_position = match &args.seeded_at {
        None => position(&settings, Side::Old).await?,
        Some(text) => seeded_at(&settings, text).await?,
    };
    let seeded = if args.seeded_at.is_some() { ", new was restored from what old had there" } else { "" };
    let note = format!("rules {:016x}{seeded}", pair.rules_hash);
    let mark_taken = match store.keep_mark(START_MARK, &old_position, &new_position, Some(&note)).await {
        Ok(()) => true,
        Err(StoreError::MarkExists(_)) if args.seeded_at.is_some() => {
            let hint = "a migration begins once; give this one another `pair`";
            return Err(Failure::new(Kind::Finding, "the start mark was taken before", hint).into());
        }
        Err(StoreError::MarkExists(_)) => false,
        Err(error) => return Err(error.into()),
    };
    let marks = store.marks().await?;
    let start = marks.iter().find(|mark| mark.name == START_MARK).context("the start mark is gone")?;
    for direction in [Direction::Forward, Direction::Reverse] {
        let position = match direction.source() {
            Side::Old => &start.old_position,
            Side::New => &start.new_position,
        };
        store.create_stream(&stream_of(direction), &position.clone().into()).await?;
    }
    if mark_taken {
        store.journal("init", &format!("start mark taken: old at {old_position}, new at {new_position}")).await?;
    }
    tell(&pair, &start.old_position, &start.new_position, mark_taken, args.output.json)
}

fn tell(pair: &Pair, old: &Position, new: &Position, mark_taken: bool, json: bool) -> anyhow::Result<()> {
    let told = Initialised {
        pair: pair.settings.pair.clone(),
        tables: pair.rules.len(),
        rules: format!("{:016x}", pair.rules_hash),
        old_position: old.to_string(),
        new_position: new.to_string(),
        mark_taken,
    };
    if json {
        return print_json(&told);
    }
    out!("pair {}: {} tables, rules {}", told.pair, told.tables, told.rules);
    out!("start mark{}: old at {}, new at {}", if mark_taken { "" } else { " (taken before)" }, old, new);
    eprintln!(
        "next: `crossfade sync forward` and `crossfade sync reverse`, each in a process of its own; then `crossfade backfill start` copies what was there before"
    );
    Ok(())
}

async fn create_node_schema(settings: &Settings, side: Side) -> anyhow::Result<()> {
    let mut conn = connect_side(settings, side, Purpose::Apply).await?;
    let cannot = || format!("the schema `crossfade` cannot be created on the {side} side");
    // Nobody removes the schema as one that nobody needs before the pair has a row in it.
    let locked: Option<Option<i64>> =
        conn.query_first(format!("SELECT GET_LOCK('{MIGRATION_LOCK}', 30)")).await.with_context(cannot)?;
    if locked.flatten() != Some(1) {
        let message = format!("{}: somebody else makes or removes it", cannot());
        return Err(Failure::new(Kind::Finding, message, "run it again").into());
    }
    for statement in node_statements() {
        match conn.query_drop(statement).await {
            Err(mysql_async::Error::Server(error)) if error.code == COLUMN_EXISTS => {}
            done => done.with_context(cannot)?,
        }
    }
    beat(&mut conn, &settings.pair, HEARTBEAT_WRITER).await.with_context(cannot)?;
    // Ends the lock, too.
    let _ = conn.disconnect().await;
    Ok(())
}

/// Where a backup of the old side was taken.
async fn seeded_at(settings: &Settings, text: &str) -> anyhow::Result<Position> {
    let source = Source::new(settings, Side::Old, Servers::new(settings.old.urls()));
    let mut conn = match &source.replica {
        Some(replica) => source.connect_replica(replica).await?,
        None => source.primary(Purpose::Binlog).await?,
    };
    let found = crossfade_binlog::position_of(&mut conn, &settings.old.binlog_url().address(), text).await;
    found.map_err(|error| {
        if matches!(error, BinlogError::Query { .. }) {
            return error.into();
        }
        let hint = "give the position that was noted with the backup, while the old side still has its binlog";
        Failure::new(Kind::Finding, with_causes(&error.into()), hint).into()
    })
}

/// A replica that is read in the side's place has by then what was committed on the side before.
async fn position(settings: &Settings, side: Side) -> anyhow::Result<Position> {
    let servers = Servers::new(settings.side(side).urls());
    Source::new(settings, side, servers).position(HEARTBEAT_WRITER).await
}
