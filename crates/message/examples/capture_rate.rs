//! How fast one stream captures into a store and is read back: `capture_rate URL [batch rows] [batches]`.

use std::sync::Arc;
use std::time::Instant;

use crossfade_config::ServerUrl;
use crossfade_message::{Epoch, Store, StoreError};
use crossfade_model::{
    ColumnKind, Direction, Message, Origin, Position, ResumePoint, RowChange, RowOp, Seen, StreamId, TableLayout,
    TableName, Value,
};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let Some(url) = arguments.next() else { return eprintln!("usage: capture_rate URL [batch rows] [batches]") };
    let mut number = |default: u64| arguments.next().and_then(|text| text.parse().ok()).unwrap_or(default);
    let (rows, batches) = (number(500), number(200));
    let server = match ServerUrl::parse(&url) {
        Ok(server) => server,
        Err((problem, remedy)) => return eprintln!("{problem}; {remedy}"),
    };
    if let Err(error) = run(&server, rows, batches).await {
        eprintln!("{error}: {:?}", std::error::Error::source(&error));
    }
}

async fn run(server: &ServerUrl, rows: u64, batches: u64) -> Result<(), StoreError> {
    let store = Store::new(server, "capture_rate");
    store.migrate().await?;
    let stream = StreamId::new(Direction::Forward, "old");
    let epoch = store.create_stream(&stream, &at(0)).await?.epoch;
    let mut state = store.adopt_stream(&stream, Epoch(epoch.0 + 1)).await?;
    let first = state.next_seq();
    let layout = layout();
    let (mut stored_bytes, mut slowest) = (0, 0.0_f64);
    let started = Instant::now();
    for _ in 0..batches {
        let batch: Vec<Message> =
            (state.next_seq()..state.next_seq() + rows).map(|seq| message(seq, &layout)).collect();
        let hashes: Vec<[u64; 2]> = batch.iter().map(|m| [m.seq.wrapping_mul(0x9e37_79b9_7f4a_7c15); 2]).collect();
        let began = Instant::now();
        let end = at(state.next_seq() + rows);
        let captured = match store.capture(&state, &batch, &hashes, &end, &Seen::default(), &[]).await {
            Ok(captured) => captured,
            Err(error) => {
                eprintln!("{error}");
                return Ok(());
            }
        };
        slowest = slowest.max(began.elapsed().as_secs_f64());
        stored_bytes += captured.stored_bytes;
        state = captured.state;
    }
    let took = started.elapsed().as_secs_f64();
    let total = rows * batches;
    println!(
        "captured {total} messages in {took:.2} s: {:.0} a second, {:.1} ms a batch, slowest {:.1} ms, {} bytes each",
        total as f64 / took,
        took * 1000.0 / batches as f64,
        slowest * 1000.0,
        stored_bytes / total
    );
    let started = Instant::now();
    let mut next = first;
    while next <= state.last_seq {
        let read = store.read_messages(&stream, next, 5000, 8 << 20).await?;
        next += read.len().max(1) as u64;
    }
    let took = started.elapsed().as_secs_f64();
    println!("read {total} messages in {took:.2} s: {:.0} a second", total as f64 / took);
    Ok(())
}

fn at(offset: u64) -> ResumePoint {
    Position::File { server: "s".to_owned(), file: "binlog.000001".to_owned(), offset }.into()
}

fn layout() -> Arc<TableLayout> {
    let text = || ColumnKind::Text { charset: "utf8mb4".to_owned() };
    Arc::new(TableLayout {
        name: TableName::new("app", "users"),
        columns: ["id", "email", "note", "updated_at"].map(Arc::from).to_vec(),
        kinds: vec![
            ColumnKind::Integer { bytes: 8, unsigned: true },
            text(),
            text(),
            ColumnKind::Timestamp { fraction_digits: 6 },
        ],
        row_key: vec![0],
    })
}

fn message(seq: u64, layout: &Arc<TableLayout>) -> Message {
    let mixed = seq.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let at = 1_790_000_000_000_000 + seq as i64 * 1_733;
    let row = |version: u64| {
        let note: String = (0..16).map(|n| format!("{:08x} ", (mixed ^ version).rotate_left(n * 3) as u32)).collect();
        let email = format!("user{mixed:x}@example.org");
        vec![Value::UInt(seq), Value::Text(email), Value::Text(note), Value::Timestamp(at + version as i64)]
    };
    let (before, after) = (Some(row(0)), Some(row(1)));
    Message {
        seq,
        change: RowChange { layout: layout.clone(), op: RowOp::Update, before, after, event_index: 0 },
        origin: Origin::User,
        seen: Arc::default(),
        committed_at_micros: at,
        source_position: format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{seq}").into(),
        effective: None,
    }
}
