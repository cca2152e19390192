//! How messages end, and how people find them.

use std::sync::Arc;
use std::time::Duration;

use crossfade_message::{
    Failure, FailureFilter, LifeEvent, ListedFailure, ListedMessage, MessageFilter, Outcome, Status, Store,
};
use crossfade_model::{Clock, LaneProgress, Message, MessageId, RowOp, Seen, StreamProgress, TableName, Value};
use crossfade_servers::Flavor;
use sqlx::AssertSqlSafe;

use crate::{at, capture_updates, client, forward, hash, on_both_servers, reverse, started, store, update};

on_both_servers!(
    every_status_shows_in_the_view_and_in_lists,
    a_replayed_end_replaces_the_one_before,
    a_message_that_ends_twice_is_kept_once,
    clearing_waits_for_nobody_elses_rows,
    ends_are_recorded_in_one_order,
    a_rows_history_spans_both_directions,
    what_has_seen_something_stands_after_it,
    a_loser_is_kept_with_what_it_had_seen,
    lists_filter,
);

fn outcome(seq: u64, status: Status, reason: &str) -> Outcome {
    Outcome {
        seq,
        table: TableName::new("app", "users"),
        status,
        reason: reason.to_owned(),
        winner: Some(MessageId { stream: reverse(), seq: 9 }),
        source_clock: Some(Clock(-5)),
        target_clock: None,
    }
}

fn failure(seq: u64, code: &str) -> Failure {
    Failure {
        seq,
        table: TableName::new("app", "users"),
        op: RowOp::Update,
        error_code: code.to_owned(),
        error_text: "duplicate entry".to_owned(),
        attempts: 1,
        retry_in: None,
    }
}

async fn in_view(flavor: Flavor, pair: &str) -> Vec<(u64, String)> {
    sqlx::query_as("SELECT seq, status FROM message WHERE pair = ? AND stream = 'forward/old' ORDER BY seq")
        .bind(pair)
        .fetch_all(&client(flavor).await)
        .await
        .unwrap()
}

async fn listed(store: &Store, filter: &MessageFilter) -> Vec<(u64, String)> {
    let mut all = store.list_messages(filter, 100).await.unwrap();
    all.sort_by_key(|message| message.seq);
    all.iter().map(|message| (message.seq, message.status.as_str().to_owned())).collect()
}

async fn every_status_shows_in_the_view_and_in_lists(flavor: Flavor) {
    let store = store(flavor, "statuses").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 9).await;
    let statuses =
        [Status::Held, Status::Stale, Status::ConflictLost, Status::Superseded, Status::Discarded, Status::Applied];
    let outcomes: Vec<Outcome> = (2..).zip(statuses).map(|(seq, status)| outcome(seq, status, "why")).collect();
    store.record_outcomes(&forward(), &outcomes).await.unwrap();
    store.record_failures(&forward(), &[failure(8, "1062")]).await.unwrap();
    store.settle(&forward(), 8).await.unwrap();

    let expected: Vec<(u64, String)> =
        ["applied", "held", "stale", "conflict_lost", "superseded", "discarded", "applied", "failed", "pending"]
            .into_iter()
            .zip(1..)
            .map(|(status, seq)| (seq, status.to_owned()))
            .collect();
    assert_eq!(in_view(flavor, "statuses").await, expected);
    assert_eq!(listed(&store, &MessageFilter::default()).await, expected);
    for status in Status::ALL {
        let filter = MessageFilter { statuses: vec![status], ..MessageFilter::default() };
        let wanted: Vec<_> = expected.iter().filter(|(_, shown)| *shown == status.as_str()).cloned().collect();
        assert!(!wanted.is_empty(), "{status:?}");
        assert_eq!(listed(&store, &filter).await, wanted);
    }
    let status = store.stream_statuses().await.unwrap().remove(0);
    assert_eq!((status.open_failures, status.held), (1, 1));

    let shown = store.show_message(&"forward/old:4".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(shown.reason.as_deref(), Some("why"));
    assert_eq!((shown.winner.as_deref(), shown.source_clock), (Some("reverse/new:9"), Some(-5)));
    assert_eq!(shown.row_key.unwrap().get(), r#"{"id":4}"#);
    assert_eq!(shown.after_image.unwrap().get(), r#"{"id":4,"name":"name 4"}"#);
    assert!(store.show_message(&"forward/old:10".parse().unwrap()).await.unwrap().is_none());
}

async fn a_replayed_end_replaces_the_one_before(flavor: Flavor) {
    let store = store(flavor, "replay").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 3).await;
    store.record_outcomes(&forward(), &[outcome(1, Status::Held, "waits")]).await.unwrap();
    store.record_outcomes(&forward(), &[outcome(1, Status::Stale, "overtaken")]).await.unwrap();
    for (code, attempts) in [("1062", 1), ("1452", 2)] {
        store.record_failures(&forward(), &[Failure { attempts, ..failure(2, code) }]).await.unwrap();
    }
    let pool = client(flavor).await;
    let row: (String, String, Option<String>, Option<String>) =
        sqlx::query_as("SELECT status, reason, row_key, before_image FROM outcome WHERE pair = 'replay'")
            .fetch_one(&pool)
            .await
            .unwrap();
    assert_eq!(row.0, "stale");
    assert_eq!(row.1, "overtaken");
    assert_eq!(row.2.as_deref(), Some(r#"{"id":1}"#));
    assert_eq!(row.3.as_deref(), Some(r#"{"id":1,"name":"before"}"#));
    let parked = store.list_failures(&FailureFilter::default(), 10).await.unwrap();
    assert_eq!(parked.len(), 1);
    assert_eq!(
        (parked[0].id.as_str(), parked[0].attempts, parked[0].error_code.as_str()),
        ("forward/old:2", 2, "1452")
    );
    let image = |parked: &ListedFailure| parked.after_image.as_ref().map(|image| image.get().to_owned());
    assert_eq!(image(&parked[0]).as_deref(), Some(r#"{"id":2,"name":"name 2"}"#));
    assert!(parked[0].last_failed_at > parked[0].first_failed_at);
    assert_eq!(parked[0].next_retry_at, None);

    let later = Failure { attempts: 3, retry_in: Some(Duration::from_secs(60)), ..failure(2, "1452") };
    store.note_attempts(&forward(), &[later, failure(3, "1062")]).await.unwrap();
    let noted = store.list_failures(&FailureFilter::default(), 10).await.unwrap();
    assert_eq!(noted.len(), 1, "message 3 is not parked, and an attempt does not park it");
    assert_eq!((noted[0].attempts, image(&noted[0])), (3, image(&parked[0])));
    assert_eq!(noted[0].first_failed_at, parked[0].first_failed_at);
    let next = noted[0].next_retry_at.expect("it is known when it is tried again") - noted[0].last_failed_at;
    assert_eq!(next.num_milliseconds(), 60_000);
    assert_eq!(store.attempts(&forward()).await.unwrap(), [(2, 3)].into());

    store.record_outcomes(&forward(), &[outcome(3, Status::Held, "waits")]).await.unwrap();
    assert_eq!(store.set_aside(&forward()).await.unwrap(), [2, 3].into());
    store.clear_set_aside(&forward(), &[1, 2, 3]).await.unwrap();
    assert!(store.set_aside(&forward()).await.unwrap().is_empty());
    store.settle(&forward(), 3).await.unwrap();
    let ends: Vec<_> = [(1, "stale"), (2, "applied"), (3, "applied")].map(|(seq, end)| (seq, end.to_owned())).into();
    assert_eq!(in_view(flavor, "replay").await, ends, "only what was set aside is taken back");
    assert!(
        store.record_outcomes(&forward(), &[outcome(4, Status::Stale, "")]).await.is_err(),
        "there is no message 4"
    );
}

/// A row that changes its key leaves one and arrives at another; both may lose, or be refused.
async fn a_message_that_ends_twice_is_kept_once(flavor: Flavor) {
    let store = store(flavor, "ends_twice").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 2).await;
    let ends = [outcome(1, Status::Stale, "the leaving"), outcome(1, Status::ConflictLost, "the arrival")];
    store.record_outcomes(&forward(), &ends).await.unwrap();
    store.record_failures(&forward(), &[failure(2, "behind"), failure(2, "1062")]).await.unwrap();
    let shown = store.show_message(&"forward/old:1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!((shown.status, shown.reason.as_deref()), (Status::ConflictLost, Some("the arrival")));
    let parked = store.list_failures(&FailureFilter::default(), 10).await.unwrap();
    assert_eq!(parked.iter().map(|parked| parked.error_code.as_str()).collect::<Vec<_>>(), ["1062"]);
}

/// However many are cleared, and few are held: a server that finds them by status locks what the other direction writes.
async fn clearing_waits_for_nobody_elses_rows(flavor: Flavor) {
    let store = store(flavor, "clearing").await;
    for stream in [forward(), reverse()] {
        let state = started(&store, &stream).await;
        capture_updates(&store, &state, 400).await;
        let ends: Vec<Outcome> = (1..=400).map(|seq| outcome(seq, Status::Stale, "overtaken")).collect();
        store.record_outcomes(&stream, &ends).await.unwrap();
        store.record_outcomes(&stream, &[outcome(7, Status::Held, "waits")]).await.unwrap();
    }
    let mut other = client(flavor).await.begin().await.unwrap();
    sqlx::query("UPDATE outcome SET reason = 'in use' WHERE pair = 'clearing' AND stream = 'reverse/new' AND seq = 7")
        .execute(&mut *other)
        .await
        .unwrap();
    let all: Vec<u64> = (1..=400).collect();
    store.clear_set_aside(&forward(), &all).await.expect("it waits for the other direction");
    other.rollback().await.unwrap();
    assert!(store.set_aside(&forward()).await.unwrap().is_empty());
    assert_eq!(store.set_aside(&reverse()).await.unwrap(), [7].into());
}

/// Whoever has some of the rows, and asks for more in the order of their numbers, meets no deadlock.
async fn ends_are_recorded_in_one_order(flavor: Flavor) {
    let store = store(flavor, "one_order").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 2).await;
    let ends = [2, 1].map(|seq| outcome(seq, Status::Held, "waits"));
    let failures = [2, 1].map(|seq| failure(seq, "1062"));
    store.record_outcomes(&forward(), &ends).await.unwrap();
    store.record_failures(&forward(), &failures).await.unwrap();
    for table in ["outcome", "failure"] {
        let pool = client(flavor).await;
        let touch = format!(
            "UPDATE {table} SET table_name = 'others' WHERE pair = 'one_order' AND stream = 'forward/old' AND seq = ?"
        );
        let mut other = pool.begin().await.unwrap();
        sqlx::query(AssertSqlSafe(touch.clone())).bind(1).execute(&mut *other).await.unwrap();
        let recording = async {
            match table {
                "outcome" => store.record_outcomes(&forward(), &ends).await,
                _ => store.record_failures(&forward(), &failures).await,
            }
        };
        let going_on = async {
            until_one_waits(&pool, table).await;
            sqlx::query(AssertSqlSafe(touch.clone())).bind(2).execute(&mut *other).await?;
            other.commit().await
        };
        let (recorded, gone_on) = tokio::join!(recording, going_on);
        recorded.unwrap();
        gone_on.unwrap();
    }
}

/// Until a session waits for a lock of this store's table.
async fn until_one_waits(pool: &sqlx::MySqlPool, table: &str) {
    let waiting = format!(
        "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_query LIKE '%INTO {table} %'"
    );
    for _ in 0..50 {
        // Statements of other tests may hold what MySQL cannot show there; then it shows nothing.
        let looked: Result<i64, _> = sqlx::query_scalar(AssertSqlSafe(waiting.clone())).fetch_one(pool).await;
        if looked.is_ok_and(|count| count > 0) {
            return;
        }
        // A server looks anew only when nobody has looked for 100 ms.
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
    panic!("nobody waits for {table}");
}

fn ids(messages: &[ListedMessage]) -> Vec<&str> {
    messages.iter().map(|message| message.id.as_str()).collect()
}

async fn a_rows_history_spans_both_directions(flavor: Flavor) {
    let store = store(flavor, "history").await;
    let mut ahead = started(&store, &forward()).await;
    let mut back = started(&store, &reverse()).await;
    for round in 0..4_u64 {
        for (state, offset) in [(&mut ahead, 0), (&mut back, 500)] {
            let first = state.next_seq();
            // User 42 is in every second block only.
            let id = |n: u64| if round.is_multiple_of(2) && n == 3 { 42 } else { (1000 + round * 10 + n) as i64 };
            let batch: Vec<Message> =
                (0..5).map(|n| update(first + n, id(n), "x", (round * 1000 + offset + n) as i64)).collect();
            let hashes: Vec<[u64; 2]> = (0..5).map(|n| [hash(id(n)); 2]).collect();
            let end = at(first);
            *state = store.capture(state, &batch, &hashes, &end, &Seen::default(), &[]).await.unwrap().state;
        }
    }
    store.settle(&forward(), 4).await.unwrap();
    let is_wanted = |message: &Message| message.change.after.as_ref().is_some_and(|row| row[0] == Value::Int(42));
    let life = store.history(&[hash(42)], is_wanted).await.unwrap();
    assert_eq!(of_life(&life), ["forward/old:4", "reverse/new:4", "forward/old:14", "reverse/new:14"]);
    assert_eq!(life[0].listed.status, Status::Applied);
    assert_eq!(life[2].listed.status, Status::Pending);
    assert!(store.history(&[hash(77)], |_| true).await.unwrap().is_empty(), "no block may hold that key");

    let pool = client(flavor).await;
    let age = "UPDATE message_block SET captured_at = captured_at - INTERVAL 1 HOUR WHERE pair = 'history' AND last_seq <= 10";
    sqlx::query(age).execute(&pool).await.unwrap();
    let recent = store.recent_history(&[hash(42)], Duration::from_secs(60), is_wanted).await.unwrap();
    assert_eq!(of_life(&recent), ["forward/old:14", "reverse/new:14"]);
    let longer = store.recent_history(&[hash(42)], Duration::from_secs(7_200), is_wanted).await.unwrap();
    assert_eq!(of_life(&longer), of_life(&life));

    let (batch, end) = ([update(ahead.next_seq(), 2000, "x", 9_000)], at(ahead.next_seq()));
    store.capture(&ahead, &batch, &[[hash(2000); 2]], &end, &Seen::default(), &[]).await.unwrap();
    for (own, age, expected) in
        [(forward(), 60, [42].as_slice()), (reverse(), 60, &[42, 2000]), (forward(), 7_200, &[42, 1000])]
    {
        let asked = [42, 77, 1000, 2000].map(hash);
        let elsewhere = store.captured_elsewhere(&own, asked, Duration::from_secs(age)).await.unwrap();
        assert_eq!(elsewhere, expected.iter().copied().map(hash).collect(), "{own}, {age} s");
    }

    let concurrent = store.read_messages_of_keys(&reverse(), 5, 20, &[hash(42)], is_wanted).await.unwrap();
    assert_eq!(concurrent.iter().map(|message| message.seq).collect::<Vec<_>>(), [14]);
}

fn of_life(life: &[LifeEvent]) -> Vec<&str> {
    life.iter().map(|event| event.listed.id.as_str()).collect()
}

/// What the clocks of the two servers say is no order: one may be ahead, and MariaDB tells whole seconds.
async fn what_has_seen_something_stands_after_it(flavor: Flavor) {
    let store = store(flavor, "causes").await;
    let ahead = started(&store, &forward()).await;
    let back = started(&store, &reverse()).await;
    let saw = |seq: u64, parked: &[u64]| {
        let lane = LaneProgress { seq, batch_first: 1, batch_last: seq, lanes: 1 };
        let progress = StreamProgress { lanes: [(0, lane)].into(), parked: parked.iter().copied().collect() };
        Seen { streams: [("forward/old".to_owned(), progress)].into() }
    };
    let forth = vec![update(1, 42, "a", 9_000_000), update(2, 42, "b", 9_000_000), update(3, 42, "c", 9_500_000)];
    let mut answers = vec![update(1, 42, "x", 1_000_000), update(2, 42, "y", 2_000_000), update(3, 42, "z", 3_000_000)];
    answers[1].seen = Arc::new(saw(1, &[]));
    answers[2].seen = Arc::new(saw(2, &[2]));
    for (state, batch) in [(&ahead, &forth), (&back, &answers)] {
        store.capture(state, batch, &[[hash(42); 2]; 3], &at(3), &Seen::default(), &[]).await.unwrap();
    }
    let life = store.history(&[hash(42)], |_| true).await.unwrap();
    let told = ["reverse/new:1", "forward/old:1", "reverse/new:2", "reverse/new:3", "forward/old:2", "forward/old:3"];
    assert_eq!(of_life(&life), told, "2 was parked when it was seen");
}

/// A loser stands in `outcome` with all that it was decided by.
async fn a_loser_is_kept_with_what_it_had_seen(flavor: Flavor) {
    let store = store(flavor, "losers").await;
    let state = started(&store, &forward()).await;
    let mut message = update(1, 7, "x", 0);
    let lane = LaneProgress { seq: 4, batch_first: 3, batch_last: 4, lanes: 1 };
    let progress = StreamProgress { lanes: [(0, lane)].into(), ..StreamProgress::default() };
    message.seen = Arc::new(Seen { streams: [("reverse/new".to_owned(), progress)].into() });
    store.capture(&state, &[message], &[[hash(7); 2]], &at(1), &Seen::default(), &[]).await.unwrap();
    let lost = Outcome { target_clock: Some(Clock(9)), ..outcome(1, Status::ConflictLost, "a later clock") };
    store.record_outcomes(&forward(), &[lost]).await.unwrap();
    let row: (String, String, String, String, String, i64, i64, String) = sqlx::query_as(
        "SELECT seen, row_key, before_image, after_image, winner, source_clock, target_clock, table_name
         FROM outcome WHERE pair = 'losers'",
    )
    .fetch_one(&client(flavor).await)
    .await
    .unwrap();
    assert_eq!(row.0, r#"{"reverse/new":{"lanes":{"0":{"seq":4,"batch_first":3,"batch_last":4,"lanes":1}}}}"#);
    assert_eq!((row.1.as_str(), row.4.as_str(), row.7.as_str()), (r#"{"id":7}"#, "reverse/new:9", "users"));
    assert_eq!((row.2.as_str(), row.3.as_str()), (r#"{"id":7,"name":"before"}"#, r#"{"id":7,"name":"x"}"#));
    assert_eq!((row.5, row.6), (-5, 9));
    let conflicts = MessageFilter { statuses: MessageFilter::CONFLICTS.to_vec(), ..MessageFilter::default() };
    assert_eq!(listed(&store, &conflicts).await, [(1, "conflict_lost".to_owned())]);
}

async fn lists_filter(flavor: Flavor) {
    let store = store(flavor, "lists").await;
    let ahead = started(&store, &forward()).await;
    capture_updates(&store, &ahead, 6).await;
    let back = started(&store, &reverse()).await;
    capture_updates(&store, &back, 2).await;
    // More blocks than one page of the search holds.
    let mut state = started(&store, &crossfade_model::StreamId::new(crossfade_model::Direction::Forward, "many")).await;
    for _ in 0..220 {
        state = capture_updates(&store, &state, 1).await;
    }
    let of_many = MessageFilter { stream: Some(state.stream.clone()), ..MessageFilter::default() };
    let all = store.list_messages(&of_many, 1000).await.unwrap();
    assert!(all.iter().map(|message| message.seq).eq((1..=220).rev()), "each once, newest first");

    let list = async |filter: MessageFilter, limit| store.list_messages(&filter, limit).await.unwrap();
    let newest = list(MessageFilter { stream: Some(forward()), ..MessageFilter::default() }, 3).await;
    assert_eq!(ids(&newest), ["forward/old:6", "forward/old:5", "forward/old:4"]);
    let of_stream = list(MessageFilter { stream: Some(reverse()), ..MessageFilter::default() }, 9).await;
    assert_eq!(ids(&of_stream), ["reverse/new:2", "reverse/new:1"]);
    let since = Some(newest[1].committed_at);
    let late = MessageFilter { since, stream: Some(forward()), ..MessageFilter::default() };
    assert_eq!(ids(&list(late, 9).await), ["forward/old:6", "forward/old:5"]);
    assert_eq!(list(MessageFilter::default(), 1000).await.len(), 228);
    let table = Some(TableName::new("app", "orders"));
    assert!(list(MessageFilter { table, ..MessageFilter::default() }, 9).await.is_empty());
    let json = serde_json::to_value(&newest[0]).unwrap();
    assert_eq!(json["after_image"]["name"], "name 6");
    assert_eq!(json["status"], "pending");
}
