//! Purging drops whole days, and never what somebody needs.

use crossfade_message::{Failure, Outcome, Status, Store, Wish};
use crossfade_model::{Direction, LaneProgress, RowOp, Seen, StreamProgress, TableName};
use crossfade_servers::{Flavor, Server};
use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Executor};

use crate::{at, capture_updates, forward, on_both_servers, reverse, started, store_at, update};

on_both_servers!(
    old_settled_days_go_and_needed_ones_stay,
    a_new_day_gets_its_partition,
    the_size_is_told,
    the_size_is_told_without_reading_the_messages
);

async fn fresh(flavor: Flavor) -> (Server, Store, MySqlPool) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap();
    let store = store_at(&server.root_url(), "p");
    store.migrate().await.unwrap();
    let pool = MySqlPool::connect(&format!("{}/crossfade", server.root_url())).await.unwrap();
    (server, store, pool)
}

/// Makes the last ten days partitions of their own, as if the store had run so long.
async fn live_ten_days(pool: &MySqlPool) {
    for table in ["message_block", "message_large"] {
        let today: String =
            sqlx::query_scalar("SELECT DATE_FORMAT(UTC_DATE(), 'p%Y%m%d')").fetch_one(pool).await.unwrap();
        let mut parts = Vec::new();
        for ago in (0..=10).rev() {
            let part: String = sqlx::query_scalar(
                "SELECT CONCAT('PARTITION ', DATE_FORMAT(UTC_DATE() - INTERVAL ? DAY, 'p%Y%m%d'), ' VALUES LESS THAN (''',
                   CAST(UTC_DATE() - INTERVAL ? DAY AS CHAR), ''')')",
            )
            .bind(ago)
            .bind(ago - 1)
            .fetch_one(pool)
            .await
            .unwrap();
            parts.push(part);
        }
        let split = format!("ALTER TABLE {table} REORGANIZE PARTITION {today} INTO ({})", parts.join(", "));
        sqlx::raw_sql(AssertSqlSafe(split)).execute(pool).await.unwrap();
    }
}

async fn age(pool: &MySqlPool, stream: &str, first_seq: u64, days: i32) {
    let done =
        sqlx::query("UPDATE message_block SET day = UTC_DATE() - INTERVAL ? DAY WHERE stream = ? AND first_seq = ?")
            .bind(days)
            .bind(stream)
            .bind(first_seq)
            .execute(pool)
            .await
            .unwrap();
    assert_eq!(done.rows_affected(), 1);
}

async fn first_seq(pool: &MySqlPool) -> Option<u64> {
    sqlx::query_scalar("SELECT MIN(first_seq) FROM message_block WHERE stream = 'forward/old'")
        .fetch_one(pool)
        .await
        .unwrap()
}

fn seen_up_to(seq: u64) -> Seen {
    let lane = LaneProgress { seq, batch_first: 1, batch_last: seq, lanes: 1 };
    let progress = StreamProgress { lanes: [(0, lane)].into(), ..StreamProgress::default() };
    Seen { streams: [("forward/old".to_owned(), progress)].into() }
}

async fn old_settled_days_go_and_needed_ones_stay(flavor: Flavor) {
    let (_server, store, pool) = fresh(flavor).await;
    live_ten_days(&pool).await;
    let mut state = started(&store, &forward()).await;
    // Blocks of ten messages, captured 9, 8, 7, 6 and 0 days ago.
    for days in [9, 8, 7, 6, 0] {
        let first = state.next_seq();
        state = capture_updates(&store, &state, 10).await;
        age(&pool, "forward/old", first, days).await;
    }
    let kept =
        |purged: &crossfade_message::Purged| purged.kept.first().map(|kept| kept.reason.clone()).unwrap_or_default();

    let unsettled = store.purge(3, false).await.unwrap();
    assert!(kept(&unsettled).contains("messages 1 to 10 of p forward/old are not settled"), "{unsettled:?}");
    assert_eq!(first_seq(&pool).await, Some(1));

    store.settle(&forward(), 35).await.unwrap();
    let lost = Outcome {
        seq: 2,
        table: TableName::new("app", "users"),
        status: Status::ConflictLost,
        reason: "older".to_owned(),
        winner: None,
        source_clock: None,
        target_clock: None,
    };
    store
        .record_outcomes(&forward(), &[lost.clone(), Outcome { seq: 12, status: Status::Held, ..lost }])
        .await
        .unwrap();
    let dry = store.purge(3, true).await.unwrap();
    assert!(kept(&dry).contains("1 messages of p forward/old are parked or held"), "{dry:?}");
    assert_eq!(first_seq(&pool).await, Some(1), "a dry run drops nothing");
    let held = store.purge(3, false).await.unwrap();
    assert_eq!(first_seq(&pool).await, Some(11));
    assert_eq!(held.outcomes, 1, "the outcome of message 2 went with it");

    store.clear_set_aside(&forward(), &[12]).await.unwrap();
    let failure = Failure {
        seq: 25,
        table: TableName::new("app", "users"),
        op: RowOp::Update,
        error_code: "1062".to_owned(),
        error_text: "duplicate".to_owned(),
        attempts: 1,
        retry_in: None,
    };
    store.record_failures(&forward(), &[failure]).await.unwrap();
    store.purge(3, false).await.unwrap();
    assert_eq!(first_seq(&pool).await, Some(21), "the day of the parked message stays");
    store.clear_set_aside(&forward(), &[25]).await.unwrap();

    // A change of the other direction that has seen messages up to 24 only, and waits to be judged.
    store.set_wish(Direction::Reverse, Wish::RUN).await.unwrap();
    let back = started(&store, &reverse()).await;
    let mut message = update(1, 1, "x", 1);
    message.seen = seen_up_to(24).into();
    store.capture(&back, &[message], &[], &at(1), &seen_up_to(35), &[]).await.unwrap();
    let judged = store.purge(3, false).await.unwrap();
    assert!(kept(&judged).contains("may have to be judged against messages 25 to 30"), "{judged:?}");
    store.settle(&reverse(), 1).await.unwrap();
    let last = store.purge(3, false).await.unwrap();
    assert!(kept(&last).contains("messages 36 to 40 of p forward/old are not settled"), "{last:?}");
    assert_eq!(first_seq(&pool).await, Some(31));
    store.settle(&forward(), 50).await.unwrap();
    // Retention keeps what is settled but young.
    store.purge(20, false).await.unwrap();
    assert_eq!(first_seq(&pool).await, Some(31));
    store.set_wish(Direction::Reverse, Wish::OFF).await.unwrap();
    store.purge(3, false).await.unwrap();
    assert_eq!(first_seq(&pool).await, Some(41));
    let gone = store.read_messages(&forward(), 35, 10, usize::MAX).await.unwrap_err();
    assert!(matches!(gone, crossfade_message::StoreError::Missing { first: 35, last: 40, .. }), "{gone}");
}

async fn a_new_day_gets_its_partition(flavor: Flavor) {
    let (_server, store, pool) = fresh(flavor).await;
    let state = started(&store, &forward()).await;
    // Nobody has prepared today: as after a week without `init`.
    for table in ["message_block", "message_large"] {
        let names: Vec<String> = sqlx::query_scalar(
            "SELECT CAST(partition_name AS CHAR) FROM information_schema.partitions
             WHERE table_schema = 'crossfade' AND table_name = ? AND partition_name LIKE 'p2%'",
        )
        .bind(table)
        .fetch_all(&pool)
        .await
        .unwrap();
        assert_eq!(names.len(), 8, "today and a week");
        let drop = format!("ALTER TABLE {table} DROP PARTITION {}", names.join(", "));
        pool.execute(AssertSqlSafe(drop)).await.unwrap();
    }
    let (one, two) = (store.clone(), store_at(&_server.root_url(), "q"));
    let other = started(&two, &forward()).await;
    let (a, b) = tokio::join!(capture_updates(&one, &state, 4), capture_updates(&two, &other, 4));
    assert_eq!((a.last_seq, b.last_seq), (4, 4));
    assert_eq!(store.read_messages(&forward(), 1, 10, usize::MAX).await.unwrap().len(), 4);
}

async fn the_size_is_told(flavor: Flavor) {
    let (_server, store, pool) = fresh(flavor).await;
    let empty = store.size().await.unwrap();
    assert_eq!((empty.messages, empty.growth_bytes_per_day), (0, 0));
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 500).await;
    let size = store.size().await.unwrap();
    assert_eq!(size.messages, 500);
    let stored: u64 = sqlx::query_scalar("SELECT CAST(SUM(stored_bytes) AS UNSIGNED) FROM message_block")
        .fetch_one(&pool)
        .await
        .unwrap();
    assert!(size.bytes > 0 && stored > 1_000, "{size:?}");
    assert_eq!(size.growth_bytes_per_day, stored * 24, "the first hour counts as an hour");
}

/// Blocks of one message each.
const MANY_BLOCKS: u64 = 3_000;

async fn the_size_is_told_without_reading_the_messages(flavor: Flavor) {
    let (_server, store, pool) = fresh(flavor).await;
    live_ten_days(&pool).await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 1).await;
    let rows_read = async || -> u64 {
        let read: Vec<(String, String)> =
            sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Handler_read%'").fetch_all(&pool).await.unwrap();
        read.iter().map(|(_, rows)| rows.parse::<u64>().unwrap()).sum()
    };
    // The server's own tables are read as well.
    store.size().await.unwrap();
    let before = rows_read().await;
    store.size().await.unwrap();
    let read_of_one = rows_read().await - before;
    let more = "INSERT INTO message_block
        SELECT pair, stream, first_seq + ?, last_seq + ?, day, committed_from, committed_to, captured_at, source_position, format,
               raw_bytes, stored_bytes, large_parts, seen, key_filter, payload FROM message_block WHERE first_seq + ? <= ?";
    let mut blocks = 1;
    while blocks < MANY_BLOCKS {
        let copy = sqlx::query(more).bind(blocks).bind(blocks).bind(blocks).bind(MANY_BLOCKS);
        copy.execute(&pool).await.unwrap();
        blocks *= 2;
    }
    // The first ones are of days ago.
    for (ago, first) in [(5, 1), (1, 500), (0, 1_000)] {
        let day = sqlx::query(
            "UPDATE message_block SET day = UTC_DATE() - INTERVAL ? DAY, captured_at = UTC_TIMESTAMP(6) - INTERVAL ? DAY
             WHERE first_seq >= ?",
        );
        day.bind(ago).bind(ago).bind(first).execute(&pool).await.unwrap();
    }
    sqlx::query("UPDATE stream SET last_seq = ?").bind(MANY_BLOCKS).execute(&pool).await.unwrap();
    let before = rows_read().await;
    let size = store.size().await.unwrap();
    let read = rows_read().await - before;
    assert_eq!(size.messages, MANY_BLOCKS);
    let each: u64 = sqlx::query_scalar("SELECT CAST(stored_bytes AS UNSIGNED) FROM message_block LIMIT 1")
        .fetch_one(&pool)
        .await
        .unwrap();
    // Those of yesterday and today, in the day that has gone since the first of them.
    let a_day = (MANY_BLOCKS - 500 + 1) * each;
    assert!(size.growth_bytes_per_day.abs_diff(a_day) < a_day / 100, "{size:?} {a_day}");
    assert!(read < read_of_one + MANY_BLOCKS / 3, "{read} rows were read, {read_of_one} where there was one block");
}
