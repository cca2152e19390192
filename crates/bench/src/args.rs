//! The command line.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, ValueEnum};
use crossfade_servers::Flavor;

use crate::contender::Contender;
use crate::figures::Conditions;
use crate::growth::Growing;
use crate::history::Work;
use crate::recording;
use crate::workload::Workload;

/// Measures crossfade beside the server's own replication, on private servers.
#[derive(Debug, Parser)]
#[command(name = "crossfade-bench", version, after_help = EXAMPLES)]
pub struct Args {
    /// Servers to measure on (default: both)
    #[arg(long, value_enum, value_delimiter = ',')]
    flavor: Vec<FlavorName>,
    /// What to measure (default: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    workload: Vec<MeasurementName>,
    /// Who takes part (default: all)
    #[arg(long, value_enum, value_delimiter = ',')]
    contender: Vec<Contender>,
    /// Row changes in W1 and W2; W3 has a third as many transactions of four, each of the ten of W4 a third as many rows, W5 twice what W3 has
    #[arg(long, default_value_t = 100_000, value_name = "N", value_parser = clap::value_parser!(u64).range(10..))]
    pub rows: u64,
    /// Rows that are copied and compared
    #[arg(long, default_value_t = 1_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..))]
    pub history_rows: u64,
    /// How often each contender runs; medians are taken over the rounds
    #[arg(long, default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// How long changes are written to measure the delay, in seconds
    #[arg(long, default_value_t = 20, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..))]
    pub delay_seconds: u32,
    /// Changes a second while the delay is measured, each in turn
    #[arg(
        long,
        value_delimiter = ',',
        default_values_t = [200, 1_000, 5_000],
        value_name = "N",
        value_parser = clap::value_parser!(u32).range(4..=20_000)
    )]
    pub rate: Vec<u32>,
    /// Messages that the message table has when it is measured whether they slow anything down, each in turn
    #[arg(long, value_delimiter = ',', default_values_t = [10_000, 100_000, 1_000_000, 10_000_000], value_name = "N")]
    pub growth_messages: Vec<u64>,
    /// The program to measure (default: `crossfade` beside this one)
    #[arg(long, value_name = "FILE")]
    crossfade: Option<PathBuf>,
    /// Added to crossfade's configuration, as TOML: --settings '[apply]
    /// lanes = 4'
    #[arg(long, default_value = "", value_name = "TOML", verbatim_doc_comment)]
    pub settings: String,
    /// Give up a run after so many seconds
    #[arg(long, default_value_t = 900, value_name = "SECONDS")]
    limit: u64,
    /// Record the workloads' binlogs again, also those that are there
    #[arg(long)]
    pub record: bool,
    /// Keep configuration and logs of runs that went well too
    #[arg(long)]
    pub keep_logs: bool,
    /// Where recordings, the servers' data and logs go
    #[arg(long, default_value = "target/bench", value_name = "FOLDER")]
    pub folder: PathBuf,
    /// Where the result goes as JSON
    #[arg(long, default_value = "target/bench/result.json", value_name = "FILE")]
    pub json: PathBuf,
    /// Keep what earlier calls have measured and this one does not, as their JSON files have it; what is measured again is replaced as a
    /// whole
    #[arg(long, value_delimiter = ',', value_name = "FILE", conflicts_with = "contender")]
    pub add: Vec<PathBuf>,
    /// Write the result as a page of the documentation too, with its chart and its figures beside it: `performance.md`, `.svg`, `.json`
    #[arg(long, value_name = "FILE")]
    pub page: Option<PathBuf>,
}

const EXAMPLES: &str = "\
Examples:
  crossfade-bench
  crossfade-bench --rows 20000 --rounds 1 --delay-seconds 10
  crossfade-bench --workload w1 --flavor mariadb --contender crossfade --rows 50000 --rounds 1
  crossfade-bench --workload copying,comparing --flavor mariadb --history-rows 100000 --rounds 1
  crossfade-bench --workload delay --contender crossfade-pair --rounds 1 --rate 200
  crossfade-bench --flavor mysql --workload w2 --add docs/performance.json --page docs/performance.md";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FlavorName {
    Mysql,
    Mariadb,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MeasurementName {
    /// Single-row INSERT transactions
    W1,
    /// Single-row UPDATE transactions, a few rows much more often than others
    W2,
    /// Transactions of four statements over four tables
    W3,
    /// Ten big INSERT transactions
    W4,
    /// W3 on both sides at once
    W5,
    /// W1 to W3 with servers that acknowledge commits before the disk has them
    Relaxed,
    /// From the commit on the source until it is seen on the target
    Delay,
    /// Decoding a saved binlog, nothing else
    Decoding,
    /// From the binlog to the message table, while applying rests
    Capture,
    /// Passing what forward has written, beside capturing the same from users
    Echoes,
    /// Inserts where the message table is small and large
    Messages,
    /// Inserts over a few and over many tables
    Tables,
    /// Copying what is there to an empty target
    Copying,
    /// Comparing two sides that are equal
    Comparing,
}

/// One kind of figure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measurement {
    Throughput(Workload),
    Relaxed,
    Delay,
    Decoding,
    Capture,
    Echoes,
    Growth(Growing),
    History(Work),
}

impl fmt::Display for Measurement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Measurement::Throughput(workload) => workload.fmt(formatter),
            Measurement::Relaxed => formatter.write_str("relaxed"),
            Measurement::Delay => formatter.write_str("delay"),
            Measurement::Decoding => formatter.write_str("decoding"),
            Measurement::Capture => formatter.write_str("capture"),
            Measurement::Echoes => formatter.write_str("echoes"),
            Measurement::Growth(growing) => growing.fmt(formatter),
            Measurement::History(work) => work.fmt(formatter),
        }
    }
}

impl Measurement {
    pub fn is_throughput(&self) -> bool {
        matches!(self, Measurement::Throughput(_) | Measurement::Relaxed)
    }
}

impl From<MeasurementName> for Measurement {
    fn from(name: MeasurementName) -> Measurement {
        match name {
            MeasurementName::W1 => Measurement::Throughput(Workload::Inserts),
            MeasurementName::W2 => Measurement::Throughput(Workload::Updates),
            MeasurementName::W3 => Measurement::Throughput(Workload::Mixed),
            MeasurementName::W4 => Measurement::Throughput(Workload::Large),
            MeasurementName::W5 => Measurement::Throughput(Workload::Both),
            MeasurementName::Relaxed => Measurement::Relaxed,
            MeasurementName::Delay => Measurement::Delay,
            MeasurementName::Decoding => Measurement::Decoding,
            MeasurementName::Capture => Measurement::Capture,
            MeasurementName::Echoes => Measurement::Echoes,
            MeasurementName::Messages => Measurement::Growth(Growing::Messages),
            MeasurementName::Tables => Measurement::Growth(Growing::Tables),
            MeasurementName::Copying => Measurement::History(Work::Copying),
            MeasurementName::Comparing => Measurement::History(Work::Comparing),
        }
    }
}

impl Args {
    pub fn flavors(&self) -> Vec<Flavor> {
        chosen(&self.flavor)
            .into_iter()
            .map(|name| match name {
                FlavorName::Mysql => Flavor::MySql,
                FlavorName::Mariadb => Flavor::MariaDb,
            })
            .collect()
    }

    pub fn measurements(&self) -> Vec<Measurement> {
        chosen(&self.workload).into_iter().map(Measurement::from).collect()
    }

    pub fn contenders(&self) -> Vec<Contender> {
        chosen(&self.contender)
    }

    pub fn limit(&self) -> Duration {
        Duration::from_secs(self.limit)
    }

    pub fn conditions(&self) -> Conditions {
        Conditions {
            rows: self.rows,
            history_rows: self.history_rows,
            rounds: self.rounds,
            delay_seconds: self.delay_seconds,
            rates: self.rate.clone(),
            growth_messages: self.growth_messages.clone(),
            definitions: recording::fingerprint(),
            settings: self.settings.clone(),
        }
    }

    /// The program to measure.
    pub fn crossfade(&self) -> Result<PathBuf> {
        let path = match &self.crossfade {
            Some(path) => path.clone(),
            None => beside_this("crossfade")?,
        };
        let hint = "cargo build --release -p crossfade-cli -p crossfade-bench";
        ensure!(path.is_file(), "{} is missing; build it with: {hint}", path.display());
        Ok(path)
    }

    /// The same without a message table.
    pub fn bare(&self) -> Result<PathBuf> {
        let path = beside_this("crossfade-bare")?;
        ensure!(path.is_file(), "{} is missing; scripts/bench.sh builds it", path.display());
        Ok(path)
    }
}

fn beside_this(name: &str) -> Result<PathBuf> {
    Ok(std::env::current_exe().context("cannot find this program's own file")?.with_file_name(name))
}

/// What was asked for, or everything.
fn chosen<T: ValueEnum + Clone>(asked: &[T]) -> Vec<T> {
    if asked.is_empty() { T::value_variants().to_vec() } else { asked.to_vec() }
}
