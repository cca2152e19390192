//! One table, compared from chunk to chunk.

use std::collections::HashMap;
use std::time::Instant;

use crossfade_applier::read_row_where;
use crossfade_catalog::chunk::{ChunkSize, ChunkWalk, KeyRange, KeySpace};
use crossfade_model::Side;
use crossfade_throttle::Pass;
use mysql_async::Conn;

use crate::passage::Passage;
use crate::progress::Progress;
use crate::report::{Difference, DifferenceKind, TableReport};
use crate::sample::Sample;
use crate::stride::Stride;
use crate::suspect::{Seen, Suspect, judge};
use crate::table::{Checksum, ColumnNames, ComparedTable, RowDigest, TableSide};
use crate::{Keeper, Options, VerifyError};

/// Rows of a side that are read one by one at a time; a chunk that has more is split first.
const ROWS_AT_ONCE: u64 = 5_000;

/// So many rows that may differ are looked at together, and wait for one mark.
const SUSPECTS_TOGETHER: usize = 1_000;

/// A table under comparison.
pub(crate) struct TableComparison<'c> {
    pub table: &'c ComparedTable,
    pub passage: &'c Passage,
    pub options: &'c Options,
    pub progress: &'c Progress,
    pub keeper: &'c dyn Keeper,
    pub conns: [Conn; 2],
    pub report: TableReport,
    pub suspects: Vec<Suspect>,
    /// Differences that were handed to the keeper.
    pub kept: u64,
}

impl TableComparison<'_> {
    /// Compares all chunks, and looks at all rows that may differ until that is known.
    pub async fn run(mut self) -> Result<TableReport, VerifyError> {
        let begun = Instant::now();
        for conn in &mut self.conns {
            KeySpace::prepare(conn).await?;
        }
        let (rows, bytes) = self.table.old.estimate(&mut self.conns[0]).await?;
        let row_bytes = bytes / rows.max(1);
        let mut size = ChunkSize::new(self.options.chunk_time, self.options.chunk_bytes);
        size.expect_row_bytes(row_bytes);
        let mut sample = Sample::new(self.options.sample, rand::random());
        let mut stride = self.stride().await?;
        let mut walk = ChunkWalk::through(KeyRange::default());
        while walk.rest().is_some() {
            let mut pass = self.options.throttle.until_rows_may_pass(size.rows()).await;
            let Some(chunk) = self.next(&mut walk, &mut stride, pass.rows()).await? else { break };
            if chunk.through.is_some() {
                if let Some(rows) = self.chunk(&chunk, pass, &mut size, &mut sample, row_bytes).await? {
                    stride.note(&chunk, rows);
                }
                continue;
            }
            // Behind the last bound of the old side the new one may have any number of rows.
            let mut tail = ChunkWalk::through(chunk);
            while let Some(chunk) = tail.next(&mut self.conns[1], &self.table.new.space, pass.rows()).await? {
                let is_last = tail.rest().is_none();
                if is_last {
                    sample.last();
                }
                self.chunk(&chunk, pass, &mut size, &mut sample, row_bytes).await?;
                // What is compared waits for nobody.
                if is_last {
                    break;
                }
                pass = self.options.throttle.until_rows_may_pass(size.rows()).await;
            }
        }
        self.judge_suspects().await?;
        self.report.finish(begun.elapsed().as_secs_f64());
        Ok(self.report)
    }

    async fn stride(&mut self) -> Result<Stride, VerifyError> {
        if !self.table.is_numbered() {
            return Ok(Stride::default());
        }
        let last = self.table.old.space.last(&mut self.conns[0], &KeyRange::default()).await?;
        Ok(last.map(|last| Stride::up_to(&last)).unwrap_or_default())
    }

    /// The next chunk: where the stride cannot tell its end, the old side does.
    async fn next(
        &mut self,
        walk: &mut ChunkWalk,
        stride: &mut Stride,
        rows: u64,
    ) -> Result<Option<KeyRange>, VerifyError> {
        let space = &self.table.old.space;
        let after = walk.rest().and_then(|rest| rest.after.clone());
        let Some(end) = after.as_ref().and_then(|after| stride.end(after, rows)) else {
            return Ok(walk.next(&mut self.conns[0], space, rows).await?);
        };
        let through = Some(space.bound([end.to_string()]));
        *walk = ChunkWalk::through(KeyRange::after(through.clone()));
        Ok(Some(KeyRange { after, through }))
    }

    /// The chunk's rows, on the side that has more; `None` where it is left out.
    async fn chunk(
        &mut self,
        chunk: &KeyRange,
        pass: Pass,
        size: &mut ChunkSize,
        sample: &mut Sample,
        row_bytes: u64,
    ) -> Result<Option<u64>, VerifyError> {
        if !sample.takes() {
            self.report.chunks_left_out += 1;
            self.progress.with(|view| view.rows_done += pass.rows());
            return Ok(None);
        }
        let begun = Instant::now();
        let (old, new) = self.checksums(chunk).await?;
        let rows = old.rows.max(new.rows);
        let took = begun.elapsed();
        // Where keys have become denser, more have come than were let pass.
        pass.used(rows);
        size.note(rows, rows.saturating_mul(row_bytes), took);
        self.report.chunks += 1;
        self.report.rows_old += old.rows;
        self.report.rows_new += new.rows;
        self.progress.with(|view| view.rows_done += rows);
        if old != new {
            self.find_rows(chunk, rows).await?;
        }
        if self.options.share < 1.0 {
            tokio::time::sleep(took.mul_f64(1.0 / self.options.share - 1.0)).await;
        }
        Ok(Some(rows))
    }

    async fn checksums(&mut self, range: &KeyRange) -> Result<(Checksum, Checksum), VerifyError> {
        let [old, new] = &mut self.conns;
        tokio::try_join!(self.table.old.checksum(old, range), self.table.new.checksum(new, range))
    }

    /// Finds the rows that make a range differ. A large range is halved, and only the halves that differ are read.
    async fn find_rows(&mut self, range: &KeyRange, rows: u64) -> Result<(), VerifyError> {
        let mut open = vec![(range.clone(), rows)];
        while let Some((range, rows)) = open.pop() {
            if rows > ROWS_AT_ONCE
                && let Some(halves) = self.halves(&range, rows).await?
            {
                for half in halves {
                    let (old, new) = self.checksums(&half).await?;
                    if old != new {
                        open.push((half, old.rows.max(new.rows)));
                    }
                }
                continue;
            }
            let [old_conn, new_conn] = &mut self.conns;
            let (old, new) =
                tokio::try_join!(self.table.old.rows(old_conn, &range), self.table.new.rows(new_conn, &range))?;
            self.suspects.extend(unlike(old, new));
            if self.suspects.len() >= SUSPECTS_TOGETHER {
                self.judge_suspects().await?;
            }
        }
        Ok(())
    }

    async fn halves(&mut self, range: &KeyRange, rows: u64) -> Result<Option<[KeyRange; 2]>, VerifyError> {
        for (conn, side) in self.conns.iter_mut().zip([Side::Old, Side::New]) {
            let middle = self.table.side(side).space.nth(conn, range, rows / 2).await?;
            if middle.is_some() && middle != range.through {
                let first = KeyRange { after: range.after.clone(), through: middle.clone() };
                return Ok(Some([first, KeyRange { after: middle, through: range.through.clone() }]));
            }
        }
        Ok(None)
    }

    async fn judge_suspects(&mut self) -> Result<(), VerifyError> {
        let suspects = std::mem::take(&mut self.suspects);
        for together in suspects.chunks(SUSPECTS_TOGETHER) {
            let judged = judge(self.table, self.passage, &mut self.conns, together).await?;
            self.report.unconfirmed += judged.open;
            if judged.open_reason.is_some() {
                self.report.unconfirmed_reason = judged.open_reason;
            }
            self.progress.with(|view| view.mismatches += judged.different.len() as u64);
            for seen in judged.different {
                self.note(&seen).await?;
            }
        }
        Ok(())
    }

    async fn note(&mut self, seen: &Seen) -> Result<(), VerifyError> {
        let kind = kind_of(seen);
        match kind {
            DifferenceKind::MissingOnOld => self.report.missing_on_old += 1,
            DifferenceKind::MissingOnNew => self.report.missing_on_new += 1,
            DifferenceKind::Different => self.report.different += 1,
        }
        if self.kept >= self.options.keep_per_table {
            return Ok(());
        }
        self.kept += 1;
        let difference = describe(self.table, &mut self.conns, seen, kind).await?;
        self.keeper.keep(difference).await
    }
}

pub(crate) fn kind_of(seen: &Seen) -> DifferenceKind {
    match (&seen.old, &seen.new) {
        (None, _) => DifferenceKind::MissingOnOld,
        (_, None) => DifferenceKind::MissingOnNew,
        _ => DifferenceKind::Different,
    }
}

/// Reads what a row holds on both sides, and finds the columns that differ.
pub(crate) async fn describe(
    table: &ComparedTable,
    conns: &mut [Conn; 2],
    seen: &Seen,
    kind: DifferenceKind,
) -> Result<Difference, VerifyError> {
    let [old_conn, new_conn] = conns;
    let mut columns = Vec::new();
    if let (Some(old), Some(new)) = (&seen.old, &seen.new) {
        let of_old = table.old.column_digests(old_conn, &old.key).await?.unwrap_or_default();
        let of_new = table.new.column_digests(new_conn, &new.key).await?.unwrap_or_default();
        let unlike = table.columns.iter().zip(of_old.iter().zip(&of_new)).filter(|(_, (old, new))| old != new);
        columns.extend(unlike.map(|(names, _)| ColumnNames { old: names.old.clone(), new: names.new.clone() }));
    }
    let old = image(&table.old, old_conn, &seen.old).await?;
    let new = image(&table.new, new_conn, &seen.new).await?;
    Ok(Difference { table: table.old.name.clone(), kind, columns, old, new, seen: seen.clone() })
}

async fn image(
    side: &TableSide,
    conn: &mut Conn,
    row: &Option<RowDigest>,
) -> Result<Option<(crossfade_model::TableLayout, crossfade_model::Row)>, VerifyError> {
    let Some(row) = row else { return Ok(None) };
    let (condition, params) = side.space.is(&row.key);
    Ok(read_row_where(conn, &side.shape, &condition, params).await?)
}

/// The rows of which the other side has none with the same key and values.
pub(crate) fn unlike(old: Vec<RowDigest>, new: Vec<RowDigest>) -> Vec<Suspect> {
    let mut of_old: HashMap<String, RowDigest> = old.into_iter().map(|row| (row.key_digest.clone(), row)).collect();
    let mut suspects = Vec::new();
    for row in new {
        match of_old.remove(&row.key_digest) {
            Some(other) if other.digest == row.digest => {}
            Some(other) => suspects.push(Suspect { side: Side::Old, key: other.key }),
            None => suspects.push(Suspect { side: Side::New, key: row.key }),
        }
    }
    suspects.extend(of_old.into_values().map(|row| Suspect { side: Side::Old, key: row.key }));
    suspects
}
