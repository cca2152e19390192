//! Who wrote a transaction, and what he had seen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use crossfade_binlog::{BinlogError, BinlogReader, EchoKey, EchoWatch, HeartbeatSeen};
use crossfade_model::{FIRST_SIDE_LANE, LaneProgress, Origin, RowChange, Value};
use crossfade_servers::{Flavor, Server};

use crate::bench::{Bench, drain, story};
use crate::on_both;

on_both!(sync_is_recognised, echoes_are_watched, only_the_first_row_marks, parked_messages, heartbeats_and_idle);

impl Bench<'_> {
    /// What the applier of the opposite direction begins its transactions with.
    async fn checkpoint(&mut self, pair: &str, stream: &str, lane: u16, seq: u64) {
        self.run(&format!(
            "INSERT INTO crossfade.checkpoint (pair, stream, lane, seq, batch_first, batch_last, lanes, epoch) \
             VALUES ('{pair}', '{stream}', {lane}, {seq}, {seq} - 4, {seq}, 1, 1) \
             ON DUPLICATE KEY UPDATE seq = VALUES(seq), batch_first = VALUES(batch_first), \
             batch_last = VALUES(batch_last), writes = writes + 1"
        ))
        .await;
    }
}

async fn sync_is_recognised(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "sync").await.with_table().await;
    let (pair, other_pair) = (bench.pair.clone(), format!("{}_other", bench.pair));
    let start = bench.here().await;
    let mut reader = bench.reader(start).await;
    bench.run("INSERT INTO t VALUES (1, 'user')").await;
    for (seq, pair) in [(5, &pair), (9, &other_pair), (10, &pair)] {
        bench.run("BEGIN").await;
        bench.checkpoint(pair, "reverse/new", 0, seq).await;
        bench.run(&format!("INSERT INTO t VALUES ({seq}, 'a'), ({seq} + 100, 'b')")).await;
        bench.run(&format!("UPDATE t SET v = 'c' WHERE id = {seq}")).await;
        bench.run("COMMIT").await;
        bench.run(&format!("INSERT INTO t VALUES ({seq} + 1000, 'user')")).await;
    }
    // A transaction with the mark alone counts as well.
    bench.checkpoint(&pair, "reverse/new", 1, 12).await;
    // The same direction's own rows say nothing about the opposite one.
    bench.checkpoint(&pair, "forward/old", 0, 99).await;
    let end = bench.here().await;
    let parts = drain(&mut reader, &end).await.unwrap();
    let user = ["+1:user", "+1005:user", "+9:a", "+109:b", "9:a>9:c", "+1009:user", "+1010:user"];
    assert_eq!(story(&parts), user);
    let sync: Vec<_> = parts.iter().filter(|part| part.head.origin == Origin::Sync).collect();
    assert_eq!(sync.iter().map(|part| part.echoes).collect::<Vec<_>>(), [3, 3, 0]);
    assert_eq!(sync.iter().map(|part| part.only_crossfade).collect::<Vec<_>>(), [false, false, true]);
    let lane = |part: &crossfade_binlog::TransactionPart, lane: u16| {
        part.head.seen.streams.get("reverse/new").and_then(|stream| stream.lanes.get(&lane)).copied()
    };
    let seen: Vec<_> = parts.iter().filter(|part| !part.changes.is_empty()).map(|part| lane(part, 0)).collect();
    let at = |seq| Some(LaneProgress { seq, batch_first: seq - 4, batch_last: seq, lanes: 1 });
    assert_eq!(seen, [None, at(5), at(5), at(5), at(10)]);
    assert_eq!(lane(sync[0], 0), at(5));
    assert_eq!(reader.seen().streams["reverse/new"].lanes[&1].seq, 12);
    assert!(!reader.seen().streams.contains_key("forward/old"));
}

/// Whoever watches is told which rows crossfade wrote, from the next transaction on. A lane beside the stream tags, and says
/// nothing of messages.
async fn echoes_are_watched(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "watched").await.with_table().await;
    let pair = bench.pair.clone();
    let watches = Arc::new(AtomicBool::new(false));
    let watched = watches.clone();
    let ids = |change: &RowChange, keys: &mut Vec<EchoKey>| {
        for image in [&change.before, &change.after].into_iter().flatten() {
            keys.push((0, number(&image[0])));
        }
    };
    let start = bench.here().await;
    let mut options = bench.options(start).await;
    options.echo_watch = Some(EchoWatch::new(move || watched.load(SeqCst), ids));
    let mut reader = BinlogReader::open(options).await.unwrap();
    let mut keys = Vec::new();
    for id in 1..=3 {
        watches.store(id != 2, SeqCst);
        bench.run("BEGIN").await;
        bench.checkpoint(&pair, "reverse/new", FIRST_SIDE_LANE, 77).await;
        bench.run(&format!("INSERT INTO t VALUES ({id}, 'a')")).await;
        bench.run(&format!("UPDATE t SET id = {id} + 100 WHERE id = {id}")).await;
        bench.run("COMMIT").await;
        let end = bench.here().await;
        // Others use the server, too.
        let parts = drain(&mut reader, &end).await.unwrap();
        for part in parts.iter().filter(|part| part.head.origin == Origin::Sync) {
            assert_eq!((part.echoes, part.changes.len()), (2, 0));
            keys.push(part.echo_keys.iter().map(|(_, id)| *id).collect::<Vec<_>>());
        }
    }
    assert_eq!(keys, [vec![1, 1, 101], vec![], vec![3, 3, 103]]);
    assert!(reader.seen().streams.is_empty(), "{:?}", reader.seen());
}

fn number(value: &Value) -> u64 {
    match value {
        Value::Int(number) => number.unsigned_abs(),
        other => panic!("{other:?} is no number"),
    }
}

async fn only_the_first_row_marks(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "late_mark").await.with_table().await;
    let pair = bench.pair.clone();
    let start = bench.here().await;
    bench.run_all(&["BEGIN", "INSERT INTO t VALUES (1, 'user')"]).await;
    bench.checkpoint(&pair, "reverse/new", 0, 7).await;
    bench.run("COMMIT").await;
    // A mark that was rolled back is none.
    bench.run("BEGIN").await;
    bench.checkpoint(&pair, "reverse/new", 0, 8).await;
    bench.run("ROLLBACK").await;
    let parts = bench.read_from(start).await;
    assert_eq!(story(&parts), ["+1:user"]);
    let part = parts.iter().find(|part| !part.changes.is_empty()).unwrap();
    assert_eq!(part.head.origin, Origin::User);
    assert!(part.head.seen.streams.is_empty());
}

/// The row of lane 65535 is no lane: its list says which messages have no effect yet, whatever else the transaction writes.
async fn parked_messages(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap();
    let mut bench = Bench::on(&server, "parked").await.with_table().await;
    let pair = bench.pair.clone();
    let start = bench.here().await;
    let mut reader = bench.reader(start.clone()).await;
    // A table of before the column: nothing can be parked, and its lanes count as ever.
    bench.run("BEGIN").await;
    bench.checkpoint(&pair, "reverse/new", 0, 5).await;
    bench.checkpoint(&pair, "reverse/new", 65535, 5).await;
    bench.run("COMMIT").await;
    let end = bench.here().await;
    drain(&mut reader, &end).await.unwrap();
    let seen = |reader: &BinlogReader| reader.seen().streams["reverse/new"].clone();
    assert_eq!((seen(&reader).lanes.keys().copied().collect::<Vec<_>>(), seen(&reader).parked.len()), (vec![0], 0));
    // From here on the column exists. Several rows of the table, in events of their own, between rows of others.
    bench.run("ALTER TABLE crossfade.checkpoint ADD COLUMN parked LONGTEXT NULL").await;
    let park = |list: &str| {
        format!(
            "UPDATE crossfade.checkpoint SET parked = {list}, writes = writes + 1 \
             WHERE pair = '{pair}' AND stream = 'reverse/new' AND lane = 65535"
        )
    };
    let mut expected = Vec::new();
    for (seq, list, parked) in
        [(9, "'[9, 5]'", vec![5, 9]), (10, "'[5]'", vec![5]), (11, "NULL", vec![]), (12, "'[]'", vec![])]
    {
        bench.run("BEGIN").await;
        bench.checkpoint(&pair, "reverse/new", 0, seq).await;
        bench.run(&format!("INSERT INTO t VALUES ({seq}, 'echo')")).await;
        bench.checkpoint(&pair, "reverse/new", 1, seq).await;
        bench.run(&park(list)).await;
        bench.run(&format!("INSERT INTO t VALUES ({seq} + 100, 'echo')")).await;
        bench.run("COMMIT").await;
        bench.run(&format!("INSERT INTO t VALUES ({seq} + 1000, 'user')")).await;
        expected.push((seq, parked));
    }
    // A retry takes messages out again: the row alone, also as the first of its transaction.
    bench.run_all(&[&park("'[7]'"), "INSERT INTO t VALUES (2000, 'user')"]).await;
    expected.push((12, vec![7]));
    // A user's transaction says nothing, whatever it writes there.
    bench.run_all(&["BEGIN", "INSERT INTO t VALUES (2001, 'user')", &park("'[8]'"), "COMMIT"]).await;
    expected.push((12, vec![7]));
    let end = bench.here().await;
    let parts = drain(&mut reader, &end).await.unwrap();
    let users: Vec<_> = parts.iter().filter(|part| !part.changes.is_empty()).collect();
    assert_eq!(story(&parts).len(), 6);
    let told = users.iter().map(|part| &part.head.seen.streams["reverse/new"]);
    let told: Vec<_> = told.map(|stream| (stream.lanes[&1].seq, stream.parked.iter().copied().collect())).collect();
    assert_eq!(told, expected);
    assert_eq!(parts.iter().map(|part| part.echoes).sum::<u64>(), 8);
    assert_eq!(seen(&reader).lanes.keys().copied().collect::<Vec<_>>(), [0, 1]);
    // Another pair's list is not read at all; one of ours that cannot be read stops the stream.
    bench.checkpoint("somebody", "reverse/new", 65535, 5).await;
    bench.run("UPDATE crossfade.checkpoint SET parked = 'nonsense' WHERE pair = 'somebody'").await;
    let end = bench.here().await;
    drain(&mut reader, &end).await.unwrap();
    bench.run(&park("'[1, -2]'")).await;
    let end = bench.here().await;
    let error = drain(&mut reader, &end).await.unwrap_err();
    assert!(matches!(&error, BinlogError::Decode { place, .. } if place.offset > 4), "{error}");
    assert!(error.hint().is_some() && !error.is_transient());
}

async fn heartbeats_and_idle(flavor: Flavor) {
    let mut bench = Bench::shared(flavor, "beats").await.with_table().await;
    let pair = bench.pair.clone();
    let start = bench.here().await;
    let options = bench.options(start.clone()).await;
    let mut reader = BinlogReader::open(options).await.unwrap();
    assert!(reader.reached(&start));
    for (pair, counter) in [(pair.as_str(), 1), ("somebody", 2), (pair.as_str(), 3)] {
        bench
            .run(&format!(
                "INSERT INTO crossfade.heartbeat (pair, writer, counter) VALUES ('{pair}', 'w', {counter}) \
                 ON DUPLICATE KEY UPDATE counter = VALUES(counter)"
            ))
            .await;
    }
    let end = bench.here().await;
    let parts = drain(&mut reader, &end).await.unwrap();
    let beats: Vec<_> = parts.iter().flat_map(|part| part.heartbeats.clone()).collect();
    let beat = |counter| HeartbeatSeen { writer: "w".to_owned(), counter };
    assert_eq!(beats, [beat(1), beat(3)]);
    assert!(parts.iter().filter(|part| !part.heartbeats.is_empty()).all(|part| part.only_crossfade && part.last));
}
