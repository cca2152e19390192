//! `docs/performance.md`: every figure in it comes from one run.

use crate::figures::{Conditions, Figures};
use crate::machine::Machine;
use crate::tables::{self, Look, grouped};
use crate::workload::{DECODED_ROW_BYTES, ROW_BYTES, Workload};

/// The whole page.
pub fn render(figures: &Figures) -> String {
    let mut page = introduction(figures);
    section(&mut page, "Throughput", &throughput_text(), throughput(figures));
    section(&mut page, "Delay", &delay_text(&figures.conditions), tables::delays(figures, Look::Markdown));
    section(&mut page, "Decoding alone", &decoding_text(), tables::decoding(figures, Look::Markdown));
    let history = tables::history(figures, Look::Markdown);
    section(&mut page, "Copying and comparing", &history_text(&figures.conditions), history);
    page.push_str(&how(&figures.conditions));
    page
}

fn section(page: &mut String, title: &str, text: &str, table: Option<String>) {
    if let Some(table) = table {
        page.push_str(&format!("\n## {title}\n\n{text}\n\n{table}\n"));
    }
}

fn introduction(figures: &Figures) -> String {
    let Machine { cpu, cores, memory_bytes, kernel, distribution, load_before, crossfade, servers, measured_at } =
        &figures.machine;
    let gibibytes = *memory_bytes as f64 / f64::from(1 << 30);
    format!(
        "# Performance\n\n\
         This page is written by `make bench`, and all its figures come from one run of it: measured {measured_at} with {crossfade} \
         ({}), on {cores} cores of {cpu} with {gibibytes:.0} GiB of memory, {distribution}, Linux {kernel}. Servers and tool shared \
         the cores. When the run began, the machine's load over the last minute was {load_before:.1}; the higher, the less the absolute \
         figures say. Ratios within a table are steadier: what slows one contender slows all.\n\n\
         Everything is durable: `sync_binlog=1` and `innodb_flush_log_at_trx_commit=1` on source, target and store.\n",
        servers.join(", ")
    )
}

fn throughput_text() -> String {
    let works = [Workload::Inserts, Workload::Updates, Workload::Large]
        .map(|workload| format!("- {workload}: {}", workload.description()))
        .join("\n");
    format!(
        "How fast a target takes in what a source has written:\n\n{works}\n\n\
         Rows are about {ROW_BYTES} bytes, with a JSON and a DECIMAL column and a unique e-mail address. Contenders:\n\n\
         - `crossfade`: the forward process, with the message table (on the target's server), the tag and all promises; reverse is \
         declared off.\n\
         - `crossfade-pair`: the same with the reverse process running beside it, so that whatever may be concurrent waits until the \
         other direction has been read (the hold). CPU seconds are those of both processes, memory that of the larger one.\n\
         - `replication-serial`, `replication-4`: the server's own replication with one applier and with four workers; it has no \
         message table, goes one way, and knows no conflicts. Its work is part of the target's CPU seconds. MySQL 9.7 always has a \
         coordinator beside its workers, which waits for a free one by yielding in a loop; that takes much of the CPU seconds shown.\n\n\
         Many small transactions become few large ones on their way through crossfade, which is where it gains. Large transactions favour \
         replication: it puts row events into tables without SQL, while crossfade writes statements, and every change into the message \
         table besides. The CPU seconds show it; where servers and tool share the cores, as here, they decide.\n\n\
         Rows a second are medians over the rounds, CPU seconds too; peaks of memory are the highest of all rounds."
    )
}

fn history_text(conditions: &Conditions) -> String {
    format!(
        "{} rows in 12 tables with foreign keys, of 60 to 700 bytes, on servers that do nothing else meanwhile.\n\n\
         - copying: until the target, whose tables were empty, has all rows. crossfade: `backfill start`, with both processes running, \
         the message table and the target's binlog on. `mydumper` and `myloader` have two threads each; `myloader` leaves the target's \
         binlog off unless told otherwise. `mysqldump | mysql` writes it.\n\
         - comparing: both sides are equal. crossfade: `verify`, while both processes run. `pt-table-checksum` needs the target to be a \
         replica of the source; its sums are computed there by replication.\n\n\
         Debian carries the other tools in versions that do not know MySQL 9: they are measured on MariaDB.\n\n\
         What crossfade does beyond them is in its CPU seconds. While it copies, each row waits for a place in the source's \
         binlog, is judged against what users have changed meanwhile, and is read once more, from the target's binlog, by the \
         reverse process, which recognises it as an echo. While it compares, both servers compute SHA-256 over a form of each \
         row that does not depend on how a side stores it, and add up 64 bits of each, where `pt-table-checksum` takes 32 bits of CRC \
         as the row is stored, whose XOR two wrong rows can leave as it was.",
        grouped(conditions.history_rows as f64)
    )
}

/// The table of rates, and below it the ratios.
fn throughput(figures: &Figures) -> Option<String> {
    let rates = tables::throughput(figures, Look::Markdown)?;
    let ratios = tables::ratios(figures, Look::Markdown);
    Some(match ratios {
        Some(ratios) => format!("{rates}\n\nMedian against median:\n\n{ratios}"),
        None => rates,
    })
}

fn delay_text(conditions: &Conditions) -> String {
    format!(
        "From the moment the source acknowledges a commit until a reader of the target sees the change, at {} changes a second for \
         {} s, inserts and updates in turn, each a transaction of one row. The reader looks more than a thousand times a second. Beside it stands what \
         one durable commit on the source took its writer in the same run: a change needs two on its way, one in the store and one in the \
         target.",
        conditions.rate, conditions.delay_seconds
    )
}

fn decoding_text() -> String {
    format!(
        "A saved binlog with rows of {DECODED_ROW_BYTES} bytes, in memory: checksums verified, every value of every row decoded, one \
         thread, by the CPU time of that thread."
    )
}

fn how(conditions: &Conditions) -> String {
    let settings = match conditions.settings.trim() {
        "" => "crossfade ran with its default settings".to_owned(),
        settings => format!("crossfade ran with these settings:\n\n```toml\n{settings}\n```\n\nThe rest were defaults"),
    };
    format!(
        "\n## How it is measured\n\n\
         For each workload two servers get the same tables, `crossfade init` takes its start mark, and the source writes {} row \
         changes. Both servers are stopped. For every contender and round, fresh servers start on copies of their data, so that each \
         contender consumes exactly the same binlog into exactly the same target. Contenders take turns within a round; there were \
         {} rounds.\n\n\
         The clock runs from starting the forward process (connecting and reading table definitions included), or from `START \
         REPLICA`, until the last row is visible on the target. Then a checksum over every column of every row must be the source's, \
         on both servers; a run where it is not has no figure. CPU seconds and peaks of memory are the kernel's, from `/proc`; those of crossfade \
         cover its whole life.\n\n\
         Servers: buffer pool 512 MiB, redo log 512 MiB, full row images, performance schema off, all else as shipped; MySQL's \
         replica keeps the order of commits, MariaDB's workers are optimistic. No connection is encrypted. {settings}.\n\n\
         `make bench` repeats all of it; `make bench QUICK=1` gives a first impression in a few minutes; \
         `target/release/crossfade-bench --help` shows how to measure one thing alone. The same figures, run by run, are in \
         `target/bench/result.json`.\n",
        grouped(conditions.rows as f64),
        conditions.rounds
    )
}
