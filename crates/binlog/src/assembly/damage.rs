//! Recorded binlogs, damaged at random, through decoding and the whole assembly: whatever the bytes, an answer comes, soon, and
//! without more memory than the input and what compression may announce.
//!
//! `corpus/` holds the recordings; the example `record_corpus` makes them. `CROSSFADE_SOAK=1` goes on for minutes;
//! `CROSSFADE_SEED=7` begins with that seed, which every failure names.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossfade_catalog::{BinlogFacts, ClockDifference, GtidMode, ServerFacts, Version};
use crossfade_config::ServerUrl;
use crossfade_model::{Column, Direction, Position, TableName, TableShape};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};

use super::{Assembly, Request};
use crate::decode::file::FileEvents;
use crate::decode::payload::Payload;
use crate::decode::{Flavor, RowsEvent, TableMap};
use crate::dump::Frame;
use crate::event::{Event, Header};
use crate::source::Source;
use crate::{BinlogError, ReaderOptions, SyncedTables, event_type};

const MYSQL: &[u8] = include_bytes!("../../corpus/mysql.binlog");
const MARIADB: &[u8] = include_bytes!("../../corpus/mariadb.binlog");

/// Bytes that lengths, counts and types are made of.
const TELLING: [u8; 12] = [0, 1, 2, 4, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff, 19];
/// No event of the corpus takes this long, whatever is in it.
const SLOWEST: Duration = Duration::from_secs(2);
/// What compression may announce, and room for everything else.
const MOST_MEMORY_KIB: u64 = (1 << 20) + (512 << 10);

/// One event as it is recorded.
#[derive(Debug, Clone)]
struct Recorded {
    header: Header,
    body: Vec<u8>,
}

struct Corpus {
    source: Source,
    events: Vec<Recorded>,
    options: ReaderOptions,
    own_shapes: Vec<Arc<TableShape>>,
}

/// How a run ended.
#[derive(Debug, Default)]
struct Figures {
    events: u64,
    parts: u64,
    changes: u64,
    errors: u64,
}

impl Corpus {
    fn of(flavor: Flavor) -> Corpus {
        let (file, version) = match flavor {
            Flavor::MySql => (MYSQL, "9.7.4"),
            Flavor::MariaDb => (MARIADB, "10.11.14-MariaDB"),
        };
        let events: Vec<Recorded> = FileEvents::new(file)
            .expect("a binlog")
            .map(|event| {
                let event = event.expect("the corpus is whole");
                let header = Header {
                    timestamp: event.timestamp,
                    code: event.code,
                    server_id: event.server_id,
                    size: (Header::BYTES + event.body.len()) as u32,
                    log_pos: event.offset as u32,
                    flags: event.flags,
                };
                Recorded { header, body: event.body.to_vec() }
            })
            .collect();
        let source = Source { address: "corpus".to_owned(), flavor, facts: facts(version, flavor) };
        let shapes = shapes(&events, flavor);
        let mut tables = SyncedTables::new();
        let (own, users): (Vec<_>, Vec<_>) = shapes.into_iter().partition(|shape| &*shape.name.schema == "crossfade");
        for shape in users.into_iter().filter(|shape| &*shape.name.table == "t") {
            tables.insert_whole(shape);
        }
        assert_eq!((tables.len(), own.len()), (1, 2), "the corpus has a synced table and crossfade's own");
        let server = ServerUrl::parse("mysql://u@127.0.0.1:1").expect("a URL");
        let start = Position::File { server: "corpus".to_owned(), file: "binlog.000002".to_owned(), offset: 4 };
        let mut options = ReaderOptions::new(server, "pair", Direction::Reverse, tables, start);
        options.part_bytes = 4 << 10;
        Corpus { source, events, options, own_shapes: own }
    }

    /// Reads events as the reader does: after an error it begins again behind it.
    fn read(&self, events: &[Recorded]) -> Figures {
        let mut assembly = Assembly::new(&self.options);
        assembly.restart(self.own_shapes.clone(), true);
        let mut figures = Figures::default();
        for event in events {
            figures.events += 1;
            if self.take(&mut assembly, event, &mut figures).is_err() {
                figures.errors += 1;
                assembly.abandon();
            }
        }
        figures
    }

    fn take(&self, assembly: &mut Assembly, event: &Recorded, figures: &mut Figures) -> Result<(), BinlogError> {
        let begin = u64::from(event.header.log_pos);
        let end = begin + u64::from(event.header.size);
        let frame = |event, inner| Frame { event, inner, begin, end, artificial: false };
        if event.header.code != event_type::TRANSACTION_PAYLOAD {
            let whole = Event::new(event.header, event.body.clone());
            return self.step(assembly, frame(whole, false), figures);
        }
        let broken = |_| BinlogError::Ended { server: String::new() };
        let body = 0..event.body.len();
        let mut payload = Payload::open(event.body.clone(), body).map_err(broken)?;
        while let Some((header, body)) = payload.next().map_err(broken)? {
            self.step(assembly, frame(Event::new(header, body), true), figures)?;
        }
        Ok(())
    }

    /// One event, and what the assembly then asks for.
    fn step(&self, assembly: &mut Assembly, frame: Frame, figures: &mut Figures) -> Result<(), BinlogError> {
        let end = frame.end;
        let taken = assembly.take(frame, &self.source, ("binlog.000002", end));
        if let Some(part) = assembly.take_part() {
            figures.parts += 1;
            figures.changes += part.changes.len() as u64;
        }
        taken?;
        match assembly.take_request() {
            Some(Request::Shape(table)) => {
                let shape = self.options.tables.get(&table).map(|synced| synced.shape.clone());
                assembly.renew(&table, shape)?;
            }
            Some(Request::OwnShapes) => assembly.set_own_shapes(self.own_shapes.clone()),
            Some(Request::Prepared { .. }) => return Err(assembly.prepared_is_gone()),
            None => {}
        }
        if let Some(part) = assembly.take_part() {
            figures.parts += 1;
            figures.changes += part.changes.len() as u64;
        }
        drop(assembly.take_notices());
        Ok(())
    }
}

fn facts(version: &str, flavor: Flavor) -> ServerFacts {
    ServerFacts {
        version: Version::parse(version).expect("a version"),
        identity: "corpus".to_owned(),
        server_id: 1,
        gtid_mode: if flavor == Flavor::MySql { GtidMode::On } else { GtidMode::Always },
        binlog: BinlogFacts { enabled: true, ..BinlogFacts::default() },
        flush_log_at_commit: 1,
        lower_case_table_names: 0,
        time_zone: "+00:00".to_owned(),
        system_time_zone: "UTC".to_owned(),
        max_allowed_packet_bytes: 64 << 20,
        read_only: false,
        auto_increment_increment: 1,
        auto_increment_offset: 1,
        logs_cascades: flavor == Flavor::MySql,
        clock: ClockDifference { micros: 0, uncertainty_micros: 0 },
    }
}

/// Definitions of all tables that rows of the corpus belong to, as their first table map has them.
fn shapes(events: &[Recorded], flavor: Flavor) -> Vec<Arc<TableShape>> {
    let mut shapes: Vec<Arc<TableShape>> = Vec::new();
    let mut map: Option<(TableMap, TableName)> = None;
    for event in events {
        if event.header.code == event_type::TABLE_MAP {
            let (_, schema, table) = TableMap::peek(&event.body).expect("a table map");
            let name = TableName::new(schema, table);
            map = Some((TableMap::parse(&event.body, flavor, None).expect("a table map"), name));
        }
        let Some((map, name)) = map.as_ref().filter(|_| RowsEvent::is_rows(event.header.code)) else { continue };
        if shapes.iter().any(|shape| shape.name == *name) {
            continue;
        }
        let rows = RowsEvent::parse(event.header.code, &event.body, 0).expect("rows");
        let Some(change) = map.changes(rows).next() else { continue };
        let layout = change.expect("a row").layout;
        let columns = layout
            .columns
            .iter()
            .zip(&layout.kinds)
            .map(|(name, kind)| Column { nullable: true, ..Column::plain(&**name, kind.clone()) });
        shapes.push(Arc::new(TableShape {
            name: name.clone(),
            columns: columns.collect(),
            primary_key: layout.row_key.clone(),
            unique_keys: Vec::new(),
            foreign_keys: Vec::new(),
            engine: "InnoDB".to_owned(),
        }));
    }
    shapes
}

/// Damages some events of a recording: cut off, flipped, overwritten, repeated, swapped, of another type.
fn damaged(rng: &mut StdRng, events: &[Recorded]) -> Vec<Recorded> {
    let mut events = events.to_vec();
    for _ in 0..rng.random_range(1..=3) {
        let place = rng.random_range(0..events.len());
        match rng.random_range(0..12) {
            0 => drop(events.remove(place)),
            1 => events.insert(place, events[place].clone()),
            2 => {
                let other = rng.random_range(0..events.len());
                events.swap(place, other);
            }
            3 => {
                let other = rng.random_range(0..events.len());
                events[place].header.code = events[other].header.code;
            }
            4 => events[place].header.code = rng.random(),
            5 => events[place].header.flags = rng.random(),
            _ => damage_bytes(rng, &mut events[place].body),
        }
        if events.is_empty() {
            break;
        }
    }
    events
}

fn damage_bytes(rng: &mut StdRng, body: &mut Vec<u8>) {
    for _ in 0..rng.random_range(1..=4) {
        if body.is_empty() {
            return;
        }
        let place = rng.random_range(0..body.len());
        match rng.random_range(0..7) {
            0 => body.truncate(place),
            1 => body[place] ^= 1 << rng.random_range(0..8),
            2 => body[place] = *TELLING.choose(rng).unwrap_or(&0),
            3 => body[place] = rng.random(),
            4 => {
                let repeated: Vec<u8> = body[place..].iter().copied().take(rng.random_range(1..40)).collect();
                body.splice(place..place, repeated);
            }
            5 => {
                let end = (place + rng.random_range(1..8)).min(body.len());
                body.drain(place..end);
            }
            _ => {
                let end = (place + 8).min(body.len());
                let number: u64 = *[u64::MAX, 1 << 63, 1 << 32, u64::from(u32::MAX), 0].choose(rng).unwrap_or(&0);
                body[place..end].copy_from_slice(&number.to_le_bytes()[..end - place]);
            }
        }
    }
}

/// The most address space that this process has had.
fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn run(flavor: Flavor) {
    let corpus = Corpus::of(flavor);
    let whole = corpus.read(&corpus.events);
    assert!(whole.errors <= 1, "the recording itself is read, but for the statement of another table: {whole:?}");
    assert!(whole.changes >= 10 && whole.parts >= 8, "{whole:?}");

    let first = std::env::var("CROSSFADE_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    let is_soak = std::env::var("CROSSFADE_SOAK").is_ok_and(|value| !value.is_empty() && value != "0");
    let limit = Duration::from_secs(if is_soak { 600 } else { 6 });
    let (begin, peak) = (Instant::now(), peak_kib());
    let (mut tried, mut total, mut slowest) = (0, Figures::default(), Duration::ZERO);
    while begin.elapsed() < limit {
        let seed = first + tried;
        let mut rng = StdRng::seed_from_u64(seed);
        let events = damaged(&mut rng, &corpus.events);
        let one = Instant::now();
        let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| corpus.read(&events)));
        let figures = read.unwrap_or_else(|_| panic!("seed {seed} panics; run it first with CROSSFADE_SEED={seed}"));
        let took = one.elapsed();
        assert!(took < SLOWEST, "seed {seed} took {took:?}");
        slowest = slowest.max(took);
        (total.errors, total.changes) = (total.errors + figures.errors, total.changes + figures.changes);
        (total.events, total.parts) = (total.events + figures.events, total.parts + figures.parts);
        tried += 1;
    }
    let grown = peak_kib() - peak;
    println!(
        "{flavor:?}: {tried} damaged recordings from seed {first}, {total:?}, slowest {slowest:?}, {grown} KiB more"
    );
    assert!(tried > 100 && total.errors > 50 && total.changes > 500, "{tried}: {total:?}");
    assert!(grown < MOST_MEMORY_KIB, "the process grew by {grown} KiB");
}

#[test]
fn p1_damaged_binlogs_of_mysql_never_panic() {
    run(Flavor::MySql);
}

#[test]
fn p1_damaged_binlogs_of_mariadb_never_panic() {
    run(Flavor::MariaDb);
}
