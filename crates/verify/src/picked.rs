//! Rows that are picked on each side by a condition of its own, compared by themselves: few, and found by an index.

use std::time::Duration;

use crossfade_catalog::Purpose;
use crossfade_catalog::chunk::KeySpace;
use crossfade_model::Side;
use mysql_async::Value;
use serde::Serialize;

use crate::compare::{describe, kind_of, unlike};
use crate::passage::Passage;
use crate::report::Difference;
use crate::suspect::judge;
use crate::table::ComparedTable;
use crate::{Filter, Sides, TablePair, VerifyError};

/// Rows that may differ are looked at together, and wait for one mark.
const SUSPECTS_TOGETHER: usize = 1_000;

/// Which rows of a side's table are compared: a condition in that side's SQL, with its parameters.
#[derive(Debug, Clone, Default)]
pub struct Pick {
    pub condition: String,
    pub params: Vec<Value>,
}

/// A table, and the rows of it that are compared.
#[derive(Debug, Clone)]
pub struct PickedTable {
    pub pair: TablePair,
    pub old: Pick,
    pub new: Pick,
}

/// What was found of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PickedCount {
    /// As the old side names it.
    pub table: String,
    pub rows_old: u64,
    pub rows_new: u64,
    /// Missing on either side, or different, and so for good.
    pub different: u64,
    /// They differ, and nobody can tell whether a change of theirs is still under way.
    pub unconfirmed: u64,
}

#[derive(Debug, Clone, Default)]
pub struct PickedReport {
    pub tables: Vec<PickedCount>,
    pub differences: Vec<Difference>,
    pub unconfirmed_reason: Option<String>,
}

impl PickedReport {
    /// Every row is the same on both sides, and known to be.
    pub fn is_equal(&self) -> bool {
        self.tables.iter().all(|table| table.different == 0 && table.unconfirmed == 0)
    }
}

/// Compares the picked rows; a row that was picked on one side alone is looked at by its key on the other. A row that differs is
/// looked at again once the streams have passed a mark, as in [`compare`](crate::compare()). Tables without a key are left out.
///
/// # Errors
///
/// The first that comes. Nothing is written but heartbeats.
pub async fn compare_picked(
    sides: &Sides,
    tables: &[PickedTable],
    patience: Duration,
) -> Result<PickedReport, VerifyError> {
    let mut conns = [sides.old.connect(Purpose::Catalog).await?, sides.new.connect(Purpose::Catalog).await?];
    let only_digests = !crate::takes_roomy_packets(&mut conns).await?;
    for conn in &mut conns {
        KeySpace::prepare(conn).await?;
    }
    let passage = Passage {
        store: sides.store.clone(),
        pair: sides.pair.clone(),
        old: sides.old.clone(),
        new: sides.new.clone(),
        patience,
    };
    let mut report = PickedReport::default();
    for table in tables.iter().filter(|table| !table.pair.mapping.keyless) {
        let TablePair { mapping, old, new } = &table.pair;
        let compared = ComparedTable::new(mapping, old, new, &Filter::default(), only_digests)?;
        let Some(compared) = compared else { continue };
        let [old_conn, new_conn] = &mut conns;
        let (of_old, of_new) = tokio::try_join!(
            compared.side(Side::Old).picked(old_conn, &table.old),
            compared.side(Side::New).picked(new_conn, &table.new)
        )?;
        let mut count = PickedCount {
            table: mapping.identity.to_string(),
            rows_old: of_old.len() as u64,
            rows_new: of_new.len() as u64,
            ..PickedCount::default()
        };
        for suspects in unlike(of_old, of_new).chunks(SUSPECTS_TOGETHER) {
            let judged = judge(&compared, &passage, &mut conns, suspects).await?;
            count.different += judged.different.len() as u64;
            count.unconfirmed += judged.open;
            report.unconfirmed_reason = judged.open_reason.or(report.unconfirmed_reason);
            for seen in &judged.different {
                report.differences.push(describe(&compared, &mut conns, seen, kind_of(seen)).await?);
            }
        }
        report.tables.push(count);
    }
    for conn in conns {
        // All is read; how a connection ends does not matter.
        let _ = conn.disconnect().await;
    }
    Ok(report)
}
