//! `docs/performance.md`: what is compared with each other comes from one call, and what was tried stands behind it.

use crate::calls::Call;
use crate::figures::{Conditions, Figures};
use crate::growth::{BEFORE, COUNTED, FILLING_ROWS};
use crate::machine::Machine;
use crate::stage::Durability;
use crate::tables::{self, Look, grouped};
use crate::workload::{DECODED_ROW_BYTES, ROW_BYTES, Workload};

/// Measured when it was tried, and not by this program.
const TRIED: &str = include_str!("tried.md");

const RELAXED: &str = "The same with `sync_binlog=0` and `innodb_flush_log_at_trx_commit=2` on source, target and store: a commit is \
     acknowledged before the disk has it. What many small commits cost is then less, and with it what is gained by making few of \
     them.";

const CAPTURE: &str = "From the source's binlog to the message table, while applying rests (`crossfade stop forward`): from starting the \
     process until the last change is captured.";

const ECHOES: &str = "What forward has written stands in the target's binlog, and the reverse process has to pass it. Beside it stands how fast \
     a reverse process captures the very same rows from the very same binlog: that of a second pair on these servers, to which nothing \
     of it is tagged. Both apply nothing meanwhile. They are timed in the message table, from what a user of the target wrote before \
     the echoes to what he wrote behind them. A row that is changed several times in a batch is written once, so there can be fewer \
     echoes than changes. Passing them takes hundredths of a second, the store is asked every 5 ms, and while the first change is \
     captured the process reads on: these rates are rough, those of W4, which take the longest, the least.";

/// The whole page.
pub fn render(figures: &Figures, chart: &str, json: &str) -> String {
    let mut page = introduction(figures);
    section(&mut page, "Throughput", &throughput_text(), throughput(figures, Durability::Durable, chart));
    section(
        &mut page,
        "Throughput of servers that are not durable",
        RELAXED,
        throughput(figures, Durability::Relaxed, chart),
    );
    section(&mut page, "Delay", &delay_text(&figures.conditions), delays(figures));
    section(&mut page, "Decoding alone", &decoding_text(), tables::decoding(figures, Look::Markdown));
    section(&mut page, "Capture alone", CAPTURE, tables::captures(figures, Look::Markdown));
    section(&mut page, "Echoes", ECHOES, tables::echoes(figures, Look::Markdown));
    section(&mut page, "Growth", &growth_text(), tables::growth(figures, Look::Markdown));
    let history = tables::history(figures, Look::Markdown);
    section(&mut page, "Copying and comparing", &history_text(&figures.conditions), history);
    page.push_str(&how(&figures.conditions, json));
    page.push_str(TRIED);
    page
}

fn section(page: &mut String, title: &str, text: &str, table: Option<String>) {
    if let Some(table) = table {
        page.push_str(&format!("\n## {title}\n\n{text}\n\n{table}\n"));
    }
}

fn introduction(figures: &Figures) -> String {
    let Machine { cpu, cores, memory_gibibytes, distribution, crossfade, servers } = &figures.machine;
    let servers: Vec<String> = servers.iter().map(|(flavor, version)| format!("{flavor} {version}")).collect();
    format!(
        "# Performance\n\n\
         This page is written by `make bench`, and all its figures but those of the last three sections come from it: {crossfade} ({}), on {cores} \
         cores of {cpu} with {memory_gibibytes} GiB of memory, {distribution}. Servers and tool shared the cores. What is \
         compared with each other was measured in one call, contenders in turn. The higher the machine's load over the minute before it, \
         the less the absolute figures say; ratios are steadier: what slows one contender slows all.\n\n{}\n\n\
         Where nothing else is said, servers are durable: `sync_binlog=1` and `innodb_flush_log_at_trx_commit=1` on source, target and store.\n",
        servers.join(", "),
        calls(figures)
    )
}

/// A line for each call of which something is shown, and for each measurement that came to no end.
fn calls(figures: &Figures) -> String {
    let line = |call: &Call| {
        let Call { at, build, kernel, load_before, measured } = call;
        format!("- {at}, build {build}, Linux {kernel}, load {load_before:.1}: {}", measured.join(", "))
    };
    let calls = figures.calls.iter().filter(|call| !call.measured.is_empty()).map(line);
    let broken = figures.broken.iter().map(|broken| format!("- {}", broken.line()));
    calls.chain(broken).collect::<Vec<_>>().join("\n")
}

fn throughput_text() -> String {
    let works = Workload::ALL.map(|workload| format!("- {workload}: {}", workload.description())).join("\n");
    format!(
        "How fast a target takes in what a source has written:\n\n{works}\n\n\
         Rows are about {ROW_BYTES} bytes, with a JSON and a DECIMAL column and a unique e-mail address; those of W3 and W5 are about 200 bytes, with an indexed number. Contenders:\n\n\
         - `crossfade`: the forward process, with the message table (on the target's server), the tag and all promises; reverse is \
         declared off.\n\
         - `crossfade-pair`: the same with the reverse process running beside it, so that whatever may be concurrent waits until the \
         other direction has been read (the hold). CPU seconds are those of both processes, memory that of the larger one.\n\
         - `replication-serial`, `replication-4`: the server's own replication with one applier and with four workers; it has no \
         message table and knows no conflicts; for W5 each server is a replica of the other. Its work is part of the target's CPU seconds. MySQL 9.7 always has a \
         coordinator beside its workers, which waits for a free one by yielding in a loop; that takes much of the CPU seconds shown.\n\
         - `client`: `mysqlbinlog | mysql`, from the source's binlog file.\n\
         - `crossfade-bare`: as `crossfade`, built without its message table and with a memory limit of 8 GiB, since it has nothing else to \
         keep what waits in; positions are still saved. No such build is meant for use.\n\
         - `ceiling`: a yardstick for what the target can take. The net rows of every 500 changes, written by two connections in \
         statements of many rows that were made beforehand, and nothing else: no reading, no order between rows, no tag, no promise. \
         Counted in source changes as well. Larger transactions, or row events, may be faster still.\n\n\
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
fn throughput(figures: &Figures, durability: Durability, chart: &str) -> Option<String> {
    let rates = tables::throughput(figures, durability, Look::Markdown)?;
    let chart = match durability {
        Durability::Durable => format!("![Rows a second of each contender, as bars]({chart})\n\n"),
        Durability::Relaxed => String::new(),
    };
    Some(match tables::ratios(figures, durability, Look::Markdown) {
        Some(ratios) => format!("{chart}{rates}\n\nMedian against median:\n\n{ratios}"),
        None => format!("{chart}{rates}"),
    })
}

fn delays(figures: &Figures) -> Option<String> {
    let mut text = tables::delays(figures, Look::Markdown)?;
    if let Some(histogram) = tables::histogram(figures, Look::Markdown) {
        text.push_str(&format!("\n\nThe share of changes by their delay, all rounds together:\n\n{histogram}"));
    }
    if let Some(trips) = tables::round_trips(figures, Look::Markdown) {
        text.push_str(&format!(
            "\n\nThere and back, on a pair that has nothing else to do: a change of the source, answered on the target as soon as it is \
             seen there, until the source sees the answer. Echoes are messages of either direction beyond what users wrote:\n\n{trips}"
        ));
    }
    Some(text)
}

fn delay_text(conditions: &Conditions) -> String {
    let rates: Vec<String> = conditions.rates.iter().map(|rate| grouped((*rate).into())).collect();
    format!(
        "From the moment the source acknowledges a commit until a reader of the target sees the change, at {} changes a second for \
         {} s, inserts and updates in turn, each a transaction of one row. The reader looks up to a thousand times a second. Beside it \
         stands what one durable commit on the source took its writer in the same run: a change needs two on its way, one in the store \
         and one in the target. Where a contender does not keep up, its delay grows for as long as changes are written.",
        rates.join(", "),
        conditions.delay_seconds
    )
}

fn growth_text() -> String {
    let (counted, before, rows) = (grouped(COUNTED as f64), grouped(BEFORE as f64), grouped(FILLING_ROWS as f64));
    format!(
        "Whether crossfade gets slower as the message table grows, or with the number of tables. {counted} inserts of one row each, as in \
         W1, over all tables in turn, that wait in the binlog; timed from the moment when the {before} before them have arrived, so that \
         starting is not counted. What the rounds write adds to the messages. Those before them are updates of {rows} small rows, captured \
         and applied by crossfade itself. The source is not durable, since what it does is not counted."
    )
}

fn decoding_text() -> String {
    format!(
        "A saved binlog with rows of {DECODED_ROW_BYTES} bytes, in memory: checksums verified, every value of every row decoded, one \
         thread, by the CPU time of that thread."
    )
}

fn how(conditions: &Conditions, json: &str) -> String {
    let settings = match conditions.settings.trim() {
        "" => "crossfade ran with its default settings".to_owned(),
        settings => format!("crossfade ran with these settings:\n\n```toml\n{settings}\n```\n\nThe rest were defaults"),
    };
    format!(
        "\n## How it is measured\n\n\
         For each workload two servers get the same tables, `crossfade init` takes its start mark, and the source writes {} row \
         changes (W3: a third as many transactions of four; W4: a third as many rows in each transaction). Both servers are stopped. For every contender and round, fresh servers start on copies of their data, so that each \
         contender consumes exactly the same binlog into exactly the same target. Contenders take turns within a round; there were \
         {} rounds.\n\n\
         The clock runs from starting the forward process (connecting and reading table definitions included), or from `START \
         REPLICA`, until the last row is visible on the target. Then a checksum over every column of every row must be the source's, \
         on both servers; a run where it is not has no figure. CPU seconds and peaks of memory are the kernel's, from `/proc`; those of crossfade \
         cover its whole life.\n\n\
         Servers: buffer pool 512 MiB, redo log 512 MiB, full row images, performance schema off, all else as shipped; MySQL's \
         replica keeps the order of commits, MariaDB's workers are optimistic. No connection is encrypted. {settings}.\n\n\
         `make bench` repeats all of it; `make bench QUICK=1` gives a first impression in some minutes; \
         `target/release/crossfade-bench --help` shows how to measure one thing alone. `--add` keeps what an earlier call has measured. \
         The same figures, run by run, are in [{json}]({json}).\n",
        grouped(conditions.rows as f64),
        conditions.rounds
    )
}
