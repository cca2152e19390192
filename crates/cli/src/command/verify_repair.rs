//! `crossfade verify --repair`: what a comparison found different is mended.

use crossfade_applier::Repairer;
use crossfade_catalog::Servers;
use crossfade_message::Store;
use crossfade_model::{Direction, Side};
use crossfade_verify::{Difference, Options, Repair, RepairReport, RepairTables, Sides, TablePair, Winner};

use super::portrait::outlook;
use super::{add_row, new_table, print_table};
use crate::args::RepairWinner;
use crate::pair::{Pair, stream_of};

/// How far both streams had captured when the comparison began: what users do later is newer than what it finds.
#[derive(Debug, Clone, Copy)]
pub struct Captured {
    forward: u64,
    reverse: u64,
}

impl Captured {
    pub async fn now(store: &Store) -> anyhow::Result<Captured> {
        Ok(Captured {
            forward: store.last_seq(&stream_of(Direction::Forward)).await?,
            reverse: store.last_seq(&stream_of(Direction::Reverse)).await?,
        })
    }
}

/// Which rows are taken, and whether any is written.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    pub winner: RepairWinner,
    pub dry_run: bool,
}

/// Mends rows, and notes in the journal what was done.
pub async fn run(
    pair: &Pair,
    sides: &Sides,
    tables: &[TablePair],
    options: &Options,
    (differences, captured): (Vec<Difference>, Captured),
    wanted: Wanted,
) -> anyhow::Result<RepairReport> {
    let repairer = async |direction: Direction, through: u64| {
        let outlook = outlook(pair, &sides.store, direction).await?;
        let target: Servers = if direction.target() == Side::Old { sides.old.clone() } else { sides.new.clone() };
        anyhow::Ok(Repairer::new(outlook, &sides.pair, target, through))
    };
    let mut how = Repair {
        winner: match wanted.winner {
            RepairWinner::OldWins => Winner::Old,
            RepairWinner::NewWins => Winner::New,
            RepairWinner::Newest => Winner::Newest,
        },
        prefer: pair.settings.conflict.prefer,
        dry_run: wanted.dry_run,
        onto_new: repairer(Direction::Forward, captured.reverse).await?,
        onto_old: repairer(Direction::Reverse, captured.forward).await?,
    };
    let tables = RepairTables::new(tables);
    let report = crossfade_verify::repair(sides, &tables, options, differences, &mut how).await?;
    if !wanted.dry_run && report.written() > 0 {
        let text = format!(
            "{:?}: {} rows written on old, {} on new",
            wanted.winner,
            report.inserted_on_old + report.changed_on_old + report.deleted_on_old,
            report.inserted_on_new + report.changed_on_new + report.deleted_on_new
        );
        sides.store.journal("repair", &text).await?;
    }
    Ok(report)
}

/// For people.
pub fn print(report: &RepairReport) {
    let mut table = new_table(&["repair", "inserted", "changed", "deleted"]);
    let counts = [
        ("old", report.inserted_on_old, report.changed_on_old, report.deleted_on_old),
        ("new", report.inserted_on_new, report.changed_on_new, report.deleted_on_new),
    ];
    for (side, inserted, changed, deleted) in counts {
        add_row(&mut table, [side.to_owned(), inserted.to_string(), changed.to_string(), deleted.to_string()]);
    }
    println!();
    print_table(&table);
    if !report.planned.is_empty() {
        let mut table = new_table(&["table", "key", "side", "action", "columns"]);
        for row in &report.planned {
            add_row(
                &mut table,
                [
                    row.table.clone(),
                    row.key.as_ref().map_or_else(String::new, |key| key.get().to_owned()),
                    row.side.to_owned(),
                    row.action.to_owned(),
                    row.columns.join(", "),
                ],
            );
        }
        println!();
        print_table(&table);
    }
    if report.dry_run {
        eprintln!("nothing was written");
    }
    let told = [
        (report.overtaken, "were changed by users meanwhile and left to the sync processes; compare again"),
        (report.refused, "could not be mended"),
        (report.still_different, "differ still, or again"),
    ];
    for (rows, what) in told.into_iter().filter(|(rows, _)| *rows > 0) {
        eprintln!("{rows} rows {what}");
    }
    for reason in &report.reasons {
        eprintln!("  {reason}");
    }
}
