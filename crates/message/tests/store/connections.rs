//! Connections that are kept at hand between statements.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crossfade_message::Store;
use crossfade_servers::{Flavor, Server};
use sqlx::mysql::MySqlPool;

use crate::{forward, on_both_servers, started, store_at};

on_both_servers!(what_is_at_hand_is_used_without_being_asked, nothing_at_hand_outlives_its_time);

const LIMIT: Duration = Duration::from_secs(5);

/// What nobody uses is ended by then, by the pool or by the server.
const LONGER_THAN_SILENCE: Duration = Duration::from_secs(15);

/// A store with a server of its own, where something was asked just now, and its root.
async fn used_store(flavor: Flavor) -> (Server, MySqlPool, Store) {
    let server = Server::builder(flavor).start().await.unwrap();
    let root = MySqlPool::connect(&format!("{}/mysql", server.root_url())).await.unwrap();
    let store = store_at(&server.root_url(), "at_hand");
    store.migrate().await.unwrap();
    started(&store, &forward()).await;
    store.last_seq(&forward()).await.unwrap();
    (server, root, store)
}

async fn sessions_of_stores(root: &MySqlPool) -> BTreeSet<u64> {
    let ids: Vec<u64> = sqlx::query_scalar(
        "SELECT CAST(id AS UNSIGNED) FROM information_schema.processlist WHERE db = 'crossfade' AND id <> CONNECTION_ID()",
    )
    .fetch_all(root)
    .await
    .unwrap();
    ids.into_iter().collect()
}

/// Pings are among what a server counts there, and statements are not.
async fn pings(root: &MySqlPool) -> u64 {
    let (_, count): (String, String) =
        sqlx::query_as("SHOW GLOBAL STATUS LIKE 'Com_admin_commands'").fetch_one(root).await.unwrap();
    count.parse().unwrap()
}

async fn what_is_at_hand_is_used_without_being_asked(flavor: Flavor) {
    let (_server, root, store) = used_store(flavor).await;
    let (before, sessions) = (pings(&root).await, sessions_of_stores(&root).await);
    for _ in 0..200 {
        store.last_seq(&forward()).await.unwrap();
    }
    let asked = pings(&root).await - before;
    assert!(asked < 20, "{asked} pings for 200 statements");
    // The pool may have closed one that it did not need.
    let now = sessions_of_stores(&root).await;
    assert!(!now.is_empty() && now.is_subset(&sessions), "{now:?} after {sessions:?}");
}

async fn nothing_at_hand_outlives_its_time(flavor: Flavor) {
    let (_server, root, store) = used_store(flavor).await;
    let former = sessions_of_stores(&root).await;
    assert!(!former.is_empty());
    store.begin_sessions_anew();
    let end = Instant::now() + LONGER_THAN_SILENCE;
    while !sessions_of_stores(&root).await.is_disjoint(&former) {
        assert!(Instant::now() < end, "what was to begin anew is still used");
        store.last_seq(&forward()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    // One that the server has ended meanwhile is found out by the statement that is given it.
    for session in sessions_of_stores(&root).await {
        sqlx::query(sqlx::AssertSqlSafe(format!("KILL {session}"))).execute(&root).await.unwrap();
    }
    let end = Instant::now() + LIMIT;
    while store.last_seq(&forward()).await.is_err() {
        assert!(Instant::now() < end, "a dead connection stays at hand");
    }

    tokio::time::timeout(LIMIT, store.close()).await.expect("closing waits for what is at hand");
    let end = Instant::now() + LIMIT;
    while !sessions_of_stores(&root).await.is_empty() {
        assert!(Instant::now() < end, "what was at hand outlives the store");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
