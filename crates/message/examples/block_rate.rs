//! How many messages a second one core packs and unpacks: 100,000 updates of about 530 image bytes.

use std::sync::Arc;
use std::time::Instant;

use crossfade_message::block::{decode, encode};
use crossfade_model::{
    Clock, ColumnKind, LaneProgress, Message, Origin, RowChange, RowOp, Seen, StreamProgress, TableLayout, TableName,
    Value,
};

fn main() {
    let count: u64 = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(100_000);
    let messages = messages(count);
    let hashes: Vec<[u64; 2]> = (0..count).map(|n| [n.wrapping_mul(0x9e37_79b9_7f4a_7c15); 2]).collect();
    let started = Instant::now();
    let blocks = match encode(&messages, &hashes) {
        Ok(blocks) => blocks,
        Err(error) => return eprintln!("{error}"),
    };
    let packed = started.elapsed();
    let started = Instant::now();
    let back: Vec<Message> = blocks.iter().flat_map(|block| decode(block).unwrap_or_default()).collect();
    let unpacked = started.elapsed();
    let raw: u64 = blocks.iter().map(|block| u64::from(block.raw_bytes)).sum();
    let stored: usize = blocks.iter().map(|block| block.payload.len() + block.key_filter.len()).sum();
    println!("messages {count}, blocks {}, equal {}", blocks.len(), back == messages);
    println!("bytes a message: JSON {}, stored {}", raw / count, stored as u64 / count);
    println!("pack {:.3} s, unpack {:.3} s", packed.as_secs_f64(), unpacked.as_secs_f64());
}

fn messages(count: u64) -> Vec<Message> {
    let text = || ColumnKind::Text { charset: "utf8mb4".to_owned() };
    let layout = Arc::new(TableLayout {
        name: TableName::new("app", "users"),
        columns: ["id", "email", "name", "balance", "note", "created_at", "updated_at"].map(Arc::from).to_vec(),
        kinds: vec![
            ColumnKind::Integer { bytes: 8, unsigned: true },
            text(),
            text(),
            ColumnKind::Decimal { precision: 12, scale: 2 },
            text(),
            ColumnKind::Datetime { fraction_digits: 0 },
            ColumnKind::Timestamp { fraction_digits: 6 },
        ],
        row_key: vec![0],
    });
    let lane = LaneProgress { seq: 4711, batch_first: 4000, batch_last: 4711, lanes: 1 };
    let progress = StreamProgress { lanes: [(0, lane)].into(), ..StreamProgress::default() };
    let seen = Arc::new(Seen { streams: [("reverse/new".to_owned(), progress)].into() });
    (1..=count).map(|seq| message(seq, &layout, &seen)).collect()
}

fn message(seq: u64, layout: &Arc<TableLayout>, seen: &Arc<Seen>) -> Message {
    let mixed = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let at = 1_790_000_000_000_000 + seq as i64 * 1_733;
    let row = |version: u64| {
        let note: String = (0..16).map(|n| format!("{:08x} ", (mixed ^ version).rotate_left(n * 3) as u32)).collect();
        let (date, time) = (crossfade_model::CalendarDate { year: 2026, month: 3, day: 9 }, Default::default());
        vec![
            Value::UInt(seq),
            Value::Text(format!("user{mixed:x}@example.org")),
            Value::Text(format!("Name {seq}")),
            Value::Decimal(format!("{}.{:02}", mixed % 10_000, version)),
            Value::Text(note),
            Value::Datetime(date, time),
            Value::Timestamp(at + version as i64),
        ]
    };
    let (before, after) = (Some(row(0)), Some(row(1)));
    Message {
        seq,
        change: RowChange { layout: layout.clone(), op: RowOp::Update, before, after, event_index: 0 },
        origin: Origin::User,
        seen: seen.clone(),
        committed_at_micros: at,
        source_position: format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{seq}").into(),
        effective: Some(Clock(at)),
    }
}
