//! The store on real servers. Each test runs on MySQL and on MariaDB, with a pair of its own in one shared schema.

mod authority;
mod breakers;
mod capture;
mod connections;
mod copies;
mod endings;
mod lease;
mod migration;
mod purge;
mod requests;
mod rounds;
mod types;
mod view;

use std::sync::Arc;

use crossfade_config::ServerUrl;
use crossfade_message::{Epoch, Store, StreamState};
use crossfade_model::{
    ColumnKind, Direction, Message, Origin, Position, ResumePoint, RowChange, RowOp, Seen, StreamId, TableLayout,
    TableName, Value,
};
use crossfade_servers::{Flavor, SharedPair};
use sqlx::mysql::MySqlPool;

/// Declares each test once for each kind of server.
macro_rules! on_both_servers {
    ($($test:ident),* $(,)?) => {
        mod mysql {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crossfade_servers::Flavor::MySql).await;
            })*
        }
        mod mariadb {
            $(#[tokio::test]
            async fn $test() {
                super::$test(crossfade_servers::Flavor::MariaDb).await;
            })*
        }
    };
}
pub(crate) use on_both_servers;

/// A pair's store at a URL; nothing is connected yet.
pub fn store_at(url: &str, pair: &str) -> Store {
    Store::new(&ServerUrl::parse(url).unwrap(), pair)
}

/// A migrated store for one test.
pub async fn store(flavor: Flavor, pair: &str) -> Store {
    let store = store_at(&SharedPair::get(flavor).await.new().root_url(), pair);
    store.migrate().await.unwrap();
    store
}

/// A user's connection to the store's schema, as any SQL client has it.
pub async fn client(flavor: Flavor) -> MySqlPool {
    let url = format!("{}/crossfade", SharedPair::get(flavor).await.new().root_url());
    MySqlPool::connect(&url).await.unwrap()
}

pub fn forward() -> StreamId {
    StreamId::new(Direction::Forward, "old")
}

pub fn reverse() -> StreamId {
    StreamId::new(Direction::Reverse, "new")
}

/// Somewhere in a binlog; higher numbers are later.
pub fn at(offset: u64) -> ResumePoint {
    Position::File { server: "s".to_owned(), file: "binlog.000001".to_owned(), offset }.into()
}

/// A stream that is taken over under an epoch of 1.
pub async fn started(store: &Store, stream: &StreamId) -> StreamState {
    store.create_stream(stream, &at(0)).await.unwrap();
    store.adopt_stream(stream, Epoch(1)).await.unwrap()
}

pub fn layout() -> Arc<TableLayout> {
    Arc::new(TableLayout {
        name: TableName::new("app", "users"),
        columns: ["id", "name"].map(Arc::from).to_vec(),
        kinds: vec![
            ColumnKind::Integer { bytes: 8, unsigned: false },
            ColumnKind::Text { charset: "utf8mb4".to_owned() },
        ],
        row_key: vec![0],
    })
}

/// An update of one user; microseconds since 2026-01-01 tell the order of commits.
pub fn update(seq: u64, id: i64, name: &str, committed_micros: i64) -> Message {
    let row = |name: &str| vec![Value::Int(id), Value::Text(name.to_owned())];
    let change = RowChange {
        layout: layout(),
        op: RowOp::Update,
        before: Some(row("before")),
        after: Some(row(name)),
        event_index: 3,
    };
    Message {
        seq,
        change,
        origin: Origin::User,
        seen: Arc::default(),
        committed_at_micros: 1_767_225_600_000_000 + committed_micros,
        source_position: format!("binlog.000001:{seq}").into(),
        effective: None,
    }
}

/// A text that is hardly smaller when it is packed.
pub fn noise(length: usize) -> String {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let letters = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        char::from(b' ' + (state % 64) as u8)
    });
    letters.take(length).collect()
}

/// Stands in for the rules' hash of a row key.
pub fn hash(id: i64) -> u64 {
    (id as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Captures updates of users 1 to `count` and gives the state after them.
pub async fn capture_updates(store: &Store, state: &StreamState, count: u64) -> StreamState {
    let first = state.next_seq();
    let batch: Vec<Message> =
        (first..first + count).map(|seq| update(seq, seq as i64, &format!("name {seq}"), seq as i64)).collect();
    let hashes: Vec<[u64; 2]> = batch.iter().map(|message| [hash(message.seq as i64); 2]).collect();
    let end = at(first + count - 1);
    store.capture(state, &batch, &hashes, &end, &Seen::default(), &[]).await.unwrap().state
}
