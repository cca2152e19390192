//! Compares both sides of a migration while both are written, and stops nothing for it.
//!
//! # What it promises
//!
//! - Each table is compared in chunks of its key, by a checksum that the servers compute over values in one form for both
//!   sides: what is equal is equal, whatever it is stored as, and NULL is no empty text. No value leaves a server for that.
//! - A chunk that differs is read row by row, without values, and each row that differs is looked at again after the streams
//!   have passed a fresh mark. It counts as different once it has stayed as it was, on both sides, while all that had been under
//!   way arrived. What cannot be known, because a stream does not get there, is counted by itself.
//! - Rows are found that are missing on either side, also beyond the last key of the other one.
//! - Nothing is written on a side but heartbeats, and rows that [`repair`] is asked to mend: one at a time, locked on both sides,
//!   still what they were when they were confirmed, and only where users of the target have done nothing to them since.
//!
//! # How it fails
//!
//! With a [`VerifyError`]. Dropping the future stops at once.
//!
//! What it cannot see: within a JSON document, a value's type where its text is the same (`1.50` as a decimal or a double).

mod canonical;
mod compare;
mod error;
mod filter;
mod passage;
mod picked;
mod progress;
mod repair;
mod report;
mod sample;
mod stride;
mod suspect;
mod table;

use std::sync::Arc;
use std::time::Duration;

use crossfade_catalog::{Purpose, Servers};
use crossfade_message::Store;
use crossfade_model::{Side, TableShape};
use crossfade_rules::TableMapping;
use crossfade_throttle::Throttle;
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use compare::TableComparison;
use passage::Passage;
use table::ComparedTable;

pub use error::VerifyError;
pub use filter::Filter;
pub use picked::{Pick, PickedCount, PickedReport, PickedTable, compare_picked};
pub use progress::{Progress, ProgressView};
pub use repair::{PlannedRow, Repair, RepairReport, RepairTables, Winner, repair};
pub use report::{Difference, DifferenceKind, TableReport, share};
pub use table::ColumnNames;

/// With smaller packets, a row of many short values might not fit one.
const ROOMY_PACKET_BYTES: u64 = 4 << 20;

/// How to compare.
#[derive(Debug, Clone)]
pub struct Options {
    pub filter: Filter,
    /// Only this share of chunks, more than 0 and at most 1.
    pub sample: Option<f64>,
    /// The time that a chunk is to take on the slower side.
    pub chunk_time: Duration,
    /// Most bytes of a chunk, as the server estimates its rows, while its keys are as dense as those of the chunk before.
    pub chunk_bytes: u64,
    /// After each chunk it rests so long that chunks are read in this share of the time; more than 0, and 1 for no rest.
    pub share: f64,
    /// Tables that are compared at a time.
    pub parallel: usize,
    /// Asked before each chunk.
    pub throttle: Throttle,
    /// How long the streams may take to pass a mark.
    pub patience: Duration,
    /// Differences of each table that are kept with their values; all are counted.
    pub keep_per_table: u64,
}

/// Takes differences as they are found.
pub trait Keeper: Send + Sync {
    fn keep(
        &self,
        difference: Difference,
    ) -> std::pin::Pin<Box<dyn Future<Output = Result<(), VerifyError>> + Send + '_>>;
}

/// A table to compare: its mapping from old to new, and both definitions.
#[derive(Debug, Clone)]
pub struct TablePair {
    pub mapping: TableMapping,
    pub old: Arc<TableShape>,
    pub new: Arc<TableShape>,
}

/// Both sides, and the store that knows how far their streams are.
#[derive(Clone)]
pub struct Sides {
    pub pair: String,
    pub old: Servers,
    pub new: Servers,
    pub store: Store,
}

/// Compares tables, and reports in their order.
///
/// # Errors
///
/// The first that comes; what runs beside it ends.
pub async fn compare(
    sides: &Sides,
    tables: &[TablePair],
    options: &Options,
    progress: &Progress,
    keeper: Arc<dyn Keeper>,
) -> Result<Vec<TableReport>, VerifyError> {
    progress.with(|view| view.tables = tables.len());
    let room = Arc::new(Semaphore::new(options.parallel.max(1)));
    let mut running = JoinSet::new();
    for (place, table) in tables.iter().enumerate() {
        let (sides, table, options) = (sides.clone(), table.clone(), options.clone());
        let (progress, keeper, room) = (progress.clone(), keeper.clone(), room.clone());
        running.spawn(async move {
            // Never closed.
            let _permit = room.acquire_owned().await;
            let name = table.mapping.identity.to_string();
            progress.with(|view| view.at_work.push(name.clone()));
            let compared = compare_table(&sides, &table, &options, &progress, &*keeper).await;
            progress.with(|view| {
                view.at_work.retain(|other| *other != name);
                view.tables_done += 1;
            });
            compared.map(|report| (place, report))
        });
    }
    let mut reports: Vec<Option<TableReport>> = vec![None; tables.len()];
    while let Some(compared) = running.join_next().await {
        match compared {
            Ok(compared) => {
                let (place, report) = compared?;
                reports[place] = Some(report);
            }
            Err(failed) if failed.is_panic() => std::panic::resume_unwind(failed.into_panic()),
            Err(_) => {}
        }
    }
    Ok(reports.into_iter().flatten().collect())
}

async fn compare_table(
    sides: &Sides,
    table: &TablePair,
    options: &Options,
    progress: &Progress,
    keeper: &dyn Keeper,
) -> Result<TableReport, VerifyError> {
    let mut report = TableReport::new(&table.mapping.identity);
    if table.mapping.keyless {
        report.skipped = Some("it has no key that tells its rows apart".to_owned());
        return Ok(report);
    }
    let mut conns = [sides.old.connect(Purpose::Catalog).await?, sides.new.connect(Purpose::Catalog).await?];
    let only_digests = !takes_roomy_packets(&mut conns).await?;
    let TablePair { mapping, old, new } = table;
    let Some(compared) = ComparedTable::new(mapping, old, new, &options.filter, only_digests)? else {
        report.skipped = Some("it has no clock that tells when its rows were changed".to_owned());
        return Ok(report);
    };
    let (expected, _) = compared.old.estimate(&mut conns[0]).await?;
    progress.with(|view| view.rows_expected += expected);
    let passage = Passage {
        store: sides.store.clone(),
        pair: sides.pair.clone(),
        old: sides.old.clone(),
        new: sides.new.clone(),
        patience: options.patience,
    };
    let comparison = TableComparison {
        table: &compared,
        passage: &passage,
        options,
        progress,
        keeper,
        conns,
        report,
        suspects: Vec::new(),
        kept: 0,
    };
    comparison.run().await
}

async fn takes_roomy_packets(conns: &mut [Conn; 2]) -> Result<bool, VerifyError> {
    for (conn, side) in conns.iter_mut().zip([Side::Old, Side::New]) {
        let bytes: Option<u64> = conn
            .query_first("SELECT @@SESSION.max_allowed_packet")
            .await
            .map_err(|source| VerifyError::Read { table: "max_allowed_packet".to_owned(), side, source })?;
        if bytes.is_some_and(|bytes| bytes < ROOMY_PACKET_BYTES) {
            return Ok(false);
        }
    }
    Ok(true)
}
