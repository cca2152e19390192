//! Capture: P1 and P2 in the store.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossfade_message::{CaptureError, Epoch, Outcome, PassedHeartbeat, Status, Store, StoreError};
use crossfade_model::{LaneProgress, Message, Seen, StreamProgress, TableName, Value};
use crossfade_servers::{Flavor, Server};

use crate::{at, capture_updates, forward, hash, noise, on_both_servers, reverse, started, store, store_at, update};

on_both_servers!(
    p1_messages_and_position_are_one_commit,
    p2_two_processes_with_other_bounds_capture_each_change_once,
    an_older_epoch_captures_nothing,
    what_is_captured_is_read_back,
    many_small_blocks_are_read_at_once,
    heartbeats_pass_with_the_position,
    a_big_row_comes_back,
    p1_a_store_that_takes_small_packets,
    a_capture_that_stops_midway_leaves_nothing,
    p1_a_killed_server_keeps_what_was_captured,
);

async fn p1_messages_and_position_are_one_commit(flavor: Flavor) {
    let store = store(flavor, "one_commit").await;
    let state = started(&store, &forward()).await;
    assert_eq!((state.next_seq(), &state.position), (1, &at(0)));
    let after = capture_updates(&store, &state, 10).await;
    assert_eq!(store.stream_state(&forward()).await.unwrap(), after);
    assert_eq!((after.last_seq, &after.position), (10, &at(10)));

    // The same batch again, from what it started with.
    let batch = [update(1, 1, "again", 1)];
    let repeated = store.capture(&state, &batch, &[], &at(1), &Seen::default(), &[]).await.unwrap_err();
    assert!(matches!(repeated, CaptureError::Superseded { .. }), "{repeated}");
    assert_eq!(store.stream_state(&forward()).await.unwrap(), after);

    // Only the position.
    let moved = store.capture(&after, &[], &[], &at(99), &Seen::default(), &[]).await.unwrap();
    assert_eq!((moved.blocks, moved.state.last_seq, &moved.state.position), (0, 10, &at(99)));
    assert_eq!(store.stream_state(&forward()).await.unwrap(), moved.state);

    // A number that leaves a hole.
    let hole = store.capture(&moved.state, &[update(12, 1, "x", 1)], &[], &at(100), &Seen::default(), &[]).await;
    assert!(
        matches!(hole, Err(CaptureError::Store(StoreError::NotContiguous { expected: 11, found: 12 }))),
        "{hole:?}"
    );
}

/// A binlog of which entry `n` is an update of row `n`; reads from a state on, in batches whose size depends on the reader.
async fn race(store: Store, reader: u64, total: u64, superseded: Arc<AtomicU64>) -> u64 {
    let (mut captured, mut step) = (0, reader);
    let mut state = store.stream_state(&forward()).await.unwrap();
    while state.last_seq < total {
        step = step.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let first = state.next_seq();
        let last = (first + (step >> 33) % (7 + reader * 10)).min(total);
        let batch: Vec<Message> = (first..=last).map(|n| update(n, n as i64, &format!("{n}"), n as i64)).collect();
        match store.capture(&state, &batch, &[], &at(last), &Seen::default(), &[]).await {
            Ok(done) => {
                captured += last - first + 1;
                state = done.state;
            }
            Err(CaptureError::Superseded { .. }) => {
                superseded.fetch_add(1, Ordering::Relaxed);
                state = store.stream_state(&forward()).await.unwrap();
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    captured
}

async fn p2_two_processes_with_other_bounds_capture_each_change_once(flavor: Flavor) {
    const TOTAL: u64 = 1500;
    let one = store(flavor, "race").await;
    started(&one, &forward()).await;
    let two = store(flavor, "race").await;
    let superseded = Arc::new(AtomicU64::new(0));
    let racers = [
        tokio::spawn(race(one.clone(), 1, TOTAL, superseded.clone())),
        tokio::spawn(race(two, 2, TOTAL, superseded.clone())),
    ];
    let mut captured = Vec::new();
    for racer in racers {
        captured.push(racer.await.unwrap());
    }
    assert_eq!(captured.iter().sum::<u64>(), TOTAL, "{captured:?}");
    assert!(superseded.load(Ordering::Relaxed) > 5, "they did get in each other's way");

    let messages = one.read_range(&forward(), 1, TOTAL).await.unwrap();
    assert_eq!(messages.len() as u64, TOTAL);
    for (n, message) in (1..).zip(&messages) {
        assert_eq!(message.seq, n);
        assert_eq!(message.change.after.as_ref().unwrap()[0], Value::Int(n as i64));
    }
    assert_eq!(one.stream_state(&forward()).await.unwrap().position, at(TOTAL));
}

async fn an_older_epoch_captures_nothing(flavor: Flavor) {
    let store = store(flavor, "epochs").await;
    let old = started(&store, &forward()).await;
    let new = store.adopt_stream(&forward(), Epoch(2)).await.unwrap();
    let late = store.capture(&old, &[update(1, 1, "x", 1)], &[], &at(1), &Seen::default(), &[]).await.unwrap_err();
    assert!(late.to_string().contains("epoch 2"), "{late}");
    let back = store.adopt_stream(&forward(), Epoch(1)).await.unwrap_err();
    assert!(matches!(back, StoreError::Overtaken { mine: 1, current: 2, .. }), "{back}");
    capture_updates(&store, &new, 1).await;
}

async fn what_is_captured_is_read_back(flavor: Flavor) {
    let writer = store(flavor, "read_back").await;
    let mut state = started(&writer, &forward()).await;
    for count in [1, 30, 500, 2] {
        state = capture_updates(&writer, &state, count).await;
    }
    // Another process knows no layouts yet.
    let reader = store(flavor, "read_back").await;
    assert_eq!(reader.last_seq(&forward()).await.unwrap(), 533);
    let all = reader.read_messages(&forward(), 1, usize::MAX, usize::MAX).await.unwrap();
    assert_eq!(all.len(), 533);
    assert!((1..).zip(&all).all(|(n, message)| *message == update(n, n as i64, &format!("name {n}"), n as i64)));
    let some = reader.read_messages(&forward(), 20, 100, usize::MAX).await.unwrap();
    assert_eq!((some[0].seq, some.last().unwrap().seq), (20, 31), "a block that does not fit is left for later");
    let some = reader.read_messages(&forward(), 32, 100, usize::MAX).await.unwrap();
    assert_eq!((some[0].seq, some.len()), (32, 100));
    let one = reader.read_messages(&forward(), 32, 100, 1).await.unwrap();
    assert_eq!(one.len(), 1);
    assert!(reader.read_messages(&forward(), 534, 100, usize::MAX).await.unwrap().is_empty());
    let range = reader.read_range(&forward(), 31, 33).await.unwrap();
    assert_eq!(range.iter().map(|message| message.seq).collect::<Vec<_>>(), [31, 32, 33]);
    let beyond = reader.read_range(&forward(), 530, 540).await.unwrap_err();
    assert!(matches!(beyond, StoreError::Missing { first: 534, last: 540, .. }), "{beyond}");
    let unknown = reader.last_seq(&reverse()).await.unwrap_err();
    assert!(matches!(unknown, StoreError::UnknownStream(_)), "{unknown}");
}

/// Users' transactions are often captured one by one; what waits of them is read as if they were one block.
async fn many_small_blocks_are_read_at_once(flavor: Flavor) {
    const BLOCKS: u64 = 600;
    let store = store(flavor, "small_blocks").await;
    let mut state = started(&store, &forward()).await;
    for _ in 0..BLOCKS {
        state = capture_updates(&store, &state, 1).await;
    }
    let seqs = |messages: Vec<Message>| messages.into_iter().map(|message| message.seq).collect::<Vec<_>>();
    let read = async |from, rows, bytes| seqs(store.read_messages(&forward(), from, rows, bytes).await.unwrap());
    assert_eq!(read(1, usize::MAX, usize::MAX).await, Vec::from_iter(1..=BLOCKS));
    assert_eq!(read(51, 500, usize::MAX).await, Vec::from_iter(51..=550));
    assert!(read(1, 500, 2_000).await.len() < 100, "bytes bound it too");
    let some = [2, 300, 301, BLOCKS].into();
    assert_eq!(seqs(store.read_some(&forward(), &some).await.unwrap()), Vec::from_iter(some));
    assert_eq!(seqs(store.read_range(&forward(), 10, 590).await.unwrap()), Vec::from_iter(10..=590));

    let pool = crate::client(flavor).await;
    let lost = "DELETE FROM message_block WHERE pair = 'small_blocks' AND first_seq = 300";
    sqlx::query(lost).execute(&pool).await.unwrap();
    let gone = store.read_messages(&forward(), 1, usize::MAX, usize::MAX).await.unwrap_err();
    assert!(matches!(gone, StoreError::Missing { first: 300, last: 300, .. }), "{gone}");
    let gone = store.read_range(&forward(), 10, 590).await.unwrap_err();
    assert!(matches!(gone, StoreError::Missing { first: 300, .. }), "{gone}");
}

async fn heartbeats_pass_with_the_position(flavor: Flavor) {
    let store = store(flavor, "beats").await;
    let state = started(&store, &reverse()).await;
    assert_eq!(store.heartbeat_passed(&reverse(), "forward").await.unwrap(), 0);
    let lane = LaneProgress { seq: 5, batch_first: 4, batch_last: 5, lanes: 1 };
    let progress = StreamProgress { lanes: [(0, lane)].into(), ..StreamProgress::default() };
    let seen = Seen { streams: [("forward/old".to_owned(), progress)].into() };
    let beat = |counter| [PassedHeartbeat { writer: "forward".to_owned(), counter }];
    let state = store.capture(&state, &[], &[], &at(1), &seen, &beat(7)).await.unwrap().state;
    let state = store.capture(&state, &[], &[], &at(2), &seen, &beat(6)).await.unwrap().state;
    assert_eq!(store.heartbeat_passed(&reverse(), "forward").await.unwrap(), 7);
    assert_eq!(state.seen, seen);
    assert_eq!(store.stream_state(&reverse()).await.unwrap(), state);
}

async fn a_big_row_comes_back(flavor: Flavor) {
    let store = store(flavor, "big").await;
    let state = started(&store, &forward()).await;
    // Nothing that compresses, so that every packet is as big as it can be.
    let mut noise = 1_u64;
    let text: String = std::iter::repeat_with(|| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        char::from(b'!' + (noise >> 58) as u8)
    })
    .take(16 << 20)
    .collect();
    let batch = [update(1, 1, "small", 1), update(2, 2, &text, 2), update(3, 3, "small", 3)];
    let end = store.capture(&state, &batch, &[], &at(3), &Seen::default(), &[]).await.unwrap().state;
    assert_eq!(store.read_messages(&forward(), 1, 100, usize::MAX).await.unwrap(), batch);
    let pool = crate::client(flavor).await;
    let shown: Vec<(u64, String)> = sqlx::query_as(
        "SELECT seq, CAST(JSON_EXTRACT(after_image, '$.name') AS CHAR) FROM message WHERE pair = 'big' ORDER BY seq",
    )
    .fetch_all(&pool)
    .await
    .unwrap();
    let shown: Vec<(u64, &str)> = shown.iter().map(|(seq, name)| (*seq, name.as_str())).collect();
    assert!(
        matches!(shown[..], [(1, "\"small\""), (2, large), (3, "\"small\"")] if large.contains("$large")),
        "{shown:?}"
    );
    assert_eq!(end.last_seq, 3);
}

async fn a_capture_that_stops_midway_leaves_nothing(flavor: Flavor) {
    let plain = store(flavor, "midway").await;
    let state = started(&plain, &forward()).await;
    let stopping = plain.clone().with_probe(Arc::new(|point| {
        if point == "inside-capture" {
            panic!("stopped inside the capture");
        }
    }));
    let from = state.clone();
    let stopped = tokio::spawn(async move { capture_updates(&stopping, &from, 5).await }).await;
    assert!(stopped.is_err());
    assert_eq!(plain.stream_state(&forward()).await.unwrap(), state);
    assert!(plain.read_messages(&forward(), 1, 100, usize::MAX).await.unwrap().is_empty());
    capture_updates(&plain, &state, 5).await;
}

async fn p1_a_killed_server_keeps_what_was_captured(flavor: Flavor) {
    let server = Server::builder(flavor).durable(true).start().await.unwrap();
    let store = store_at(&server.root_url(), "killed");
    store.migrate().await.unwrap();
    let state = started(&store, &forward()).await;
    let state = capture_updates(&store, &state, 7).await;
    server.kill9().await.unwrap();
    let batch = [update(8, 8, "x", 8)];
    let away = store.capture(&state, &batch, &[], &at(8), &Seen::default(), &[]).await.unwrap_err();
    assert!(matches!(&away, CaptureError::Store(error) if error.is_transient()), "{away:?}");
    server.restart().await.unwrap();
    // Connections from before may fail once each.
    let mut attempts = 0;
    let after = loop {
        match store.capture(&state, &batch, &[], &at(8), &Seen::default(), &[]).await {
            Ok(done) => break done.state,
            Err(CaptureError::Store(error)) if error.is_transient() && attempts < 20 => attempts += 1,
            Err(error) => panic!("{error:?}"),
        }
    };
    assert_eq!(after.last_seq, 8);
    assert_eq!(store.read_range(&forward(), 1, 8).await.unwrap().len(), 8);
}

/// Four MiB is what MySQL 5.7 takes at once by default: one row is larger, and so are the images of several.
async fn p1_a_store_that_takes_small_packets(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().option("max_allowed_packet", 4 << 20).start().await.unwrap();
    let store = store_at(&server.root_url(), "small_packets");
    store.migrate().await.unwrap();
    let state = started(&store, &forward()).await;
    let batch: Vec<Message> =
        (1..=7).map(|seq| update(seq, 1, &noise(if seq == 1 { 9 << 20 } else { 700 << 10 }), 1)).collect();
    let hashes: Vec<[u64; 2]> = batch.iter().map(|_| [hash(1); 2]).collect();
    store.capture(&state, &batch, &hashes, &at(7), &Seen::default(), &[]).await.unwrap();
    assert!(store.read_range(&forward(), 1, 7).await.unwrap() == batch, "other messages come back");
    let outcomes: Vec<Outcome> = (1..=7)
        .map(|seq| {
            Outcome::undisputed(seq, TableName::new("app", "users"), Status::Stale, "it was overtaken".to_owned())
        })
        .collect();
    store.record_outcomes(&forward(), &outcomes).await.unwrap();
}
