//! Damaged events: whatever the bytes, the decoder answers, and soon.

use std::time::{Duration, Instant};

use crossfade_binlog::decode::file::FileEvents;
use crossfade_binlog::decode::{Flavor as Dialect, RowsEvent, TableMap};
use crossfade_servers::{Flavor, SharedPair};

use super::{log, matrix};

/// A small generator, so that a failure comes again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % sides.max(1) as u64) as usize
    }

    /// Cut off, flipped, overwritten with what lengths are made of, or with bytes repeated.
    fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.roll(3) {
            let place = self.roll(bytes.len());
            match self.roll(5) {
                0 => bytes.truncate(place),
                1 => bytes[place] ^= 1 << self.roll(8),
                2 => bytes[place] = [0, 1, 0x7f, 0x80, 0xfb, 0xfc, 0xfd, 0xfe, 0xff][self.roll(9)],
                3 => {
                    let repeated: Vec<u8> = bytes[place..].iter().copied().take(self.roll(9)).collect();
                    bytes.splice(place..place, repeated);
                }
                _ => bytes[place] = self.roll(256) as u8,
            }
            if bytes.is_empty() {
                return;
            }
        }
    }
}

/// Everything that may be done with a pair of events. Returns rows decoded and errors.
fn decode(map: &[u8], code: u8, rows: &[u8], flavor: Dialect) -> (usize, usize) {
    let _ = TableMap::peek(map);
    let Ok(event) = RowsEvent::parse(code, rows, 0) else { return (0, 1) };
    let counted = event.count(map);
    let Ok(map) = TableMap::parse(map, flavor, None) else { return (0, 1) };
    let changes: Vec<_> = map.changes(event).collect();
    let good = changes.iter().filter(|change| change.is_ok()).count();
    if good == changes.len() {
        assert_eq!(counted, Ok(good as u64), "counting and decoding agree");
    }
    (good, changes.len() - good)
}

async fn run(flavor: Flavor) {
    let pair = SharedPair::get(flavor).await;
    let schema = pair.schema("hostile");
    matrix::write(pair.old(), &schema).await;
    let dialect = log::dialect(pair.old());
    let events: Vec<log::Raw> = log::events(pair.old(), &schema).into_values().flatten().collect();
    let whole = |raw: &log::Raw| raw.rows.iter().map(|(_, body)| body.len()).sum::<usize>();
    // Millions of bytes in one cell make each damage rare.
    let events: Vec<log::Raw> = events.into_iter().filter(|raw| !raw.rows.is_empty() && whole(raw) < 100_000).collect();
    assert!(events.len() > 900);

    let mut dice = Dice(0x0dd_ba11);
    let (mut good, mut bad, mut tried) = (0, 0, 0);
    let mut slowest = Duration::ZERO;
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(4) {
        let raw = &events[dice.roll(events.len())];
        let (code, body) = &raw.rows[dice.roll(raw.rows.len())];
        let (mut map, mut rows) = (raw.map.clone(), body.clone());
        match dice.roll(3) {
            0 => dice.damage(&mut map),
            1 => dice.damage(&mut rows),
            _ => {
                dice.damage(&mut map);
                dice.damage(&mut rows);
            }
        }
        let codes = [*code, 23, 24, 25, 30, 31, 32, 39, 166];
        let code = if dice.roll(10) == 0 { codes[dice.roll(codes.len())] } else { *code };
        let one = Instant::now();
        let (decoded, errors) = decode(&map, code, &rows, dialect);
        slowest = slowest.max(one.elapsed());
        good += decoded;
        bad += usize::from(errors > 0);
        tried += 1;
    }
    println!("damaged events, {flavor}: {tried}, errors {bad}, rows still decoded {good}, slowest {slowest:?}");
    assert!(tried > 2_000 && bad > 500 && good > 500);
    assert!(slowest < Duration::from_secs(2), "time follows the size of the event");
}

#[tokio::test]
async fn damaged_events_of_mysql_never_panic() {
    run(Flavor::MySql).await;
}

#[tokio::test]
async fn damaged_events_of_mariadb_never_panic() {
    run(Flavor::MariaDb).await;
}

#[test]
fn random_bytes_never_panic() {
    let mut dice = Dice(0xdead_beef);
    for _ in 0..20_000 {
        let bytes: Vec<u8> = (0..dice.roll(200)).map(|_| dice.roll(256) as u8).collect();
        let code = [23, 31, 39, 168][dice.roll(4)];
        let _ = decode(&bytes, code, &bytes, Dialect::MySql);
        let _ = TableMap::parse(&bytes, Dialect::MariaDb, None);
        let file = [b"\xfebin", bytes.as_slice()].concat();
        let events: Vec<_> = FileEvents::new(&file).unwrap().collect();
        assert!(events.iter().rev().skip(1).all(Result::is_ok), "an error is the last");
    }
}

#[tokio::test]
async fn a_flipped_bit_in_a_file_is_found_by_its_checksum() {
    let pair = SharedPair::get(Flavor::MySql).await;
    // Whoever comes first finds little there.
    pair.create_schema("flipped").await.unwrap();
    let file =
        log::paths(pair.old()).into_iter().map(|path| std::fs::read(path).unwrap()).max_by_key(Vec::len).unwrap();
    let whole: Vec<_> = FileEvents::new(&file).unwrap().map_while(Result::ok).collect();
    assert!(whole.len() > 2);
    for event in whole.iter().filter(|event| !event.body.is_empty()).take(50) {
        let mut damaged = file.clone();
        let place = event.offset as usize + 19 + event.body.len() / 2;
        damaged[place] ^= 4;
        let before = FileEvents::new(&damaged).unwrap().take_while(Result::is_ok).count();
        assert_eq!(whole[before].offset, event.offset);
    }
}
