//! Schemas and their versions.

use crossfade_message::{StoreError, node_statements};
use crossfade_servers::{Flavor, Server};
use sqlx::mysql::MySqlPool;
use sqlx::{Executor, Row};

use crate::{on_both_servers, store_at};

on_both_servers!(
    migrations_repeat_and_newer_versions_are_refused,
    an_older_store_is_brought_up_to_date,
    store_and_node_share_a_schema,
    an_account_of_the_schema_is_enough
);

async fn server(flavor: Flavor) -> Server {
    Server::builder(flavor).relaxed().start().await.unwrap()
}

async fn migrations_repeat_and_newer_versions_are_refused(flavor: Flavor) {
    let server = server(flavor).await;
    let store = store_at(&server.root_url(), "p");
    let missing = store.version_check().await.unwrap_err();
    assert!(matches!(missing, StoreError::NotMigrated { found: None, .. }), "{missing}");
    assert_eq!(missing.hint(), Some("run `crossfade init`"));

    let other = store_at(&server.root_url(), "q");
    let (one, two) = tokio::join!(store.migrate(), other.migrate());
    one.unwrap();
    two.unwrap();
    let pool = MySqlPool::connect(&format!("{}/crossfade", server.root_url())).await.unwrap();
    let before = definitions(&pool).await;
    store.migrate().await.unwrap();
    assert_eq!(definitions(&pool).await, before);
    assert!(before.len() >= 12, "{before:?}");
    store.version_check().await.unwrap();

    let minor =
        async || -> u16 { sqlx::query_scalar("SELECT minor FROM store_version").fetch_one(&pool).await.unwrap() };
    let ours = minor().await;
    pool.execute("UPDATE store_version SET minor = minor + 1").await.unwrap();
    store.version_check().await.unwrap();
    store.migrate().await.unwrap();
    assert_eq!(minor().await, ours + 1, "a migration never goes back");
    pool.execute("UPDATE store_version SET major = major + 1").await.unwrap();
    assert!(matches!(store.version_check().await, Err(StoreError::TooNew { .. })));
    assert!(matches!(store.migrate().await, Err(StoreError::TooNew { .. })));
}

/// A store of version 1.2, one of 1.1, one of 1.0, and one whose step to 1.1 was interrupted.
async fn an_older_store_is_brought_up_to_date(flavor: Flavor) {
    let server = server(flavor).await;
    let store = store_at(&server.root_url(), "p");
    store.migrate().await.unwrap();
    let pool = MySqlPool::connect(&format!("{}/crossfade", server.root_url())).await.unwrap();
    let current = definitions(&pool).await;
    let last = ["DROP TABLE difference", "DROP TABLE verification"];
    let later = [&last[..], &["DROP TABLE request"]].concat();
    let interrupted = [
        "DROP TABLE difference",
        "DROP TABLE request",
        "ALTER TABLE direction DROP COLUMN reason",
        "DROP TABLE canary",
    ];
    let before = ["ALTER TABLE outcome DROP COLUMN seen"];
    for (minor, undone) in [
        (2, last.to_vec()),
        (1, later.clone()),
        (0, interrupted.to_vec()),
        (0, [&interrupted[..], &before[..]].concat()),
    ] {
        for statement in undone {
            pool.execute(sqlx::AssertSqlSafe(statement.to_owned())).await.unwrap();
        }
        let version = format!("UPDATE store_version SET minor = {minor}");
        pool.execute(sqlx::AssertSqlSafe(version)).await.unwrap();
        let old = store.version_check().await.unwrap_err();
        assert!(matches!(old, StoreError::NotMigrated { found: Some(_), .. }), "{old}");
        store.migrate().await.unwrap();
        store.version_check().await.unwrap();
        assert_eq!(definitions(&pool).await, current);
    }
}

async fn definitions(pool: &MySqlPool) -> Vec<(String, String)> {
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT CAST(table_name AS CHAR) FROM information_schema.tables WHERE table_schema = 'crossfade' ORDER BY 1",
    )
    .fetch_all(pool)
    .await
    .unwrap();
    let mut found = Vec::new();
    for name in names {
        let row = pool.fetch_one(sqlx::AssertSqlSafe(format!("SHOW CREATE TABLE {name}"))).await.unwrap();
        found.push((name, row.get::<String, _>(1)));
    }
    found
}

async fn store_and_node_share_a_schema(flavor: Flavor) {
    let server = server(flavor).await;
    let pool = MySqlPool::connect(&server.root_url()).await.unwrap();
    for _ in 0..2 {
        for statement in node_statements() {
            match sqlx::raw_sql(statement).execute(&pool).await {
                Err(sqlx::Error::Database(error)) if error.message().contains("Duplicate column") => {}
                done => drop(done.unwrap()),
            }
        }
        store_at(&server.root_url(), "p").migrate().await.unwrap();
    }
    let node_tables: i64 = sqlx::query_scalar(
        "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = 'crossfade'
          AND table_name IN ('checkpoint', 'tombstone', 'heartbeat', 'returned', 'flag') AND engine = 'InnoDB'",
    )
    .fetch_one(&pool)
    .await
    .unwrap();
    assert_eq!(node_tables, 5);
}

async fn an_account_of_the_schema_is_enough(flavor: Flavor) {
    let server = server(flavor).await;
    let root = MySqlPool::connect(&server.root_url()).await.unwrap();
    root.execute("CREATE USER 'keeper'@'%' IDENTIFIED BY 'p@ss:word/1'").await.unwrap();
    root.execute("GRANT ALL ON crossfade.* TO 'keeper'@'%'").await.unwrap();
    // Without TLS too: the password then goes encrypted with the server's key.
    // MariaDB before 11.4 has no certificate unless it is given one.
    let modes = if flavor == Flavor::MySql { &["PREFERRED", "DISABLED", "REQUIRED"][..] } else { &["PREFERRED"] };
    for mode in modes {
        let url = format!("{}/?ssl-mode={mode}", server.url("keeper", "p@ss:word/1"));
        let store = store_at(&url, "p");
        store.migrate().await.unwrap();
        store.version_check().await.unwrap();
        let state = crate::started(&store, &crate::forward()).await;
        crate::capture_updates(&store, &state, 3).await;
        assert_eq!(store.purge(0, false).await.unwrap().kept, []);
        root.execute("DROP DATABASE crossfade").await.unwrap();
        store.close().await;
    }
    if flavor == Flavor::MySql {
        // Encryption is used without being asked for where the server insists.
        root.execute("ALTER USER 'keeper'@'%' REQUIRE SSL").await.unwrap();
        let store = store_at(&server.url("keeper", "p@ss:word/1"), "p");
        store.migrate().await.unwrap();
        crate::started(&store, &crate::forward()).await;
    }
    let wrong = store_at(&server.url("keeper", "wrong"), "p").version_check().await.unwrap_err();
    assert!(!format!("{wrong:?}").contains("p@ss"), "{wrong:?}");
}
