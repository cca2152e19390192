//! How long a source keeps what is not read.

use std::time::Duration;

use crossfade_binlog::{BinlogError, Unread, current_file_position, unread};
use crossfade_model::Position;
use crossfade_servers::{Flavor, Server};

use crate::bench::{Bench, PATIENCE};
use crate::on_both;

const KEPT: Duration = Duration::from_secs(3_600);
/// The test itself takes some of the time.
const NEARLY: Duration = Duration::from_secs(3_500);

on_both!(time_left_of_what_is_unread, the_gap_is_told);

async fn file(bench: &mut Bench<'_>) -> String {
    match current_file_position(&mut bench.conn, "test").await.unwrap() {
        Position::File { file, .. } => file,
        other => panic!("{other}"),
    }
}

/// Begins three files, so that each has a transaction of its own. MariaDB rests until a file is checkpointed.
async fn three_files(bench: &mut Bench<'_>) -> [(Position, Position, String); 3] {
    let mut places = Vec::new();
    for id in 1..=3 {
        let by_file = current_file_position(&mut bench.conn, "test").await.unwrap();
        places.push((bench.here().await, by_file, file(bench).await));
        bench.run(&format!("INSERT INTO t VALUES ({id}, 'x')")).await;
        if id < 3 {
            bench.run("FLUSH BINARY LOGS").await;
        }
    }
    places.try_into().expect("three places")
}

async fn time_left_of_what_is_unread(flavor: Flavor) {
    let options = Server::builder(flavor).relaxed().option("binlog_expire_logs_seconds", KEPT.as_secs());
    let server = options.start().await.unwrap();
    let mut bench = Bench::on(&server, "unread").await.with_table().await;
    let places = three_files(&mut bench).await;
    let url = bench.url();
    for (index, (by_gtid, by_file, name)) in places.iter().enumerate() {
        for position in [by_gtid, by_file] {
            let found = unread(&url, position).await.unwrap();
            assert_eq!((&found.oldest_file, found.files), (name, 3 - index), "{position}");
            assert!(found.bytes > 0 && !found.is_urgent(), "{found:?}");
            let left = found.left.unwrap();
            // The file that is written now is not even a candidate.
            assert!(if index == 2 { left == KEPT } else { (NEARLY..=KEPT).contains(&left) }, "{found:?}");
        }
    }
    let end = bench.here().await;
    assert_eq!(unread(&url, &end).await.unwrap().files, 1, "all is read");

    bench.run("SET GLOBAL binlog_expire_logs_seconds = 1").await;
    let began = tokio::time::Instant::now();
    let urgent = async || unread(&url, &places[0].0).await.unwrap();
    let mut found: Unread = urgent().await;
    while found.left != Some(Duration::ZERO) {
        assert!(began.elapsed() < PATIENCE, "{found:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
        found = urgent().await;
    }
    assert!(found.is_urgent());
    bench.run("SET GLOBAL binlog_expire_logs_seconds = 0").await;
    let found = unread(&url, &places[0].0).await.unwrap();
    assert_eq!((found.kept, found.left, found.is_urgent()), (None, None, false));
}

/// Which transactions, or which files, are gone.
async fn the_gap_is_told(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap();
    let mut bench = Bench::on(&server, "gap").await.with_table().await;
    let places = three_files(&mut bench).await;
    let [first, second, third] = &places;
    let began = tokio::time::Instant::now();
    while bench.files().await.first() != Some(&third.2) {
        bench.run(&format!("PURGE BINARY LOGS TO '{}'", third.2)).await;
        assert!(began.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let url = bench.url();
    let gap = |from: &Position, to: &Position| match (from, to) {
        (Position::MySql { executed: from }, Position::MySql { executed: to }) => to.subtract(from).to_string(),
        (Position::MariaDb { gtid: from }, Position::MariaDb { gtid: to }) => {
            let ((domain, (_, from)), (server, to)) = (from.domains.iter().next().unwrap(), to.domains[&0]);
            format!("{domain}-{server}-{} to {to}", from + 1)
        }
        other => panic!("{other:?}"),
    };
    for (position, missing) in [
        (&first.0, gap(&first.0, &third.0)),
        (&second.0, gap(&second.0, &third.0)),
        (&first.1, format!("{} from offset", first.2)),
        (&first.1, format!("up to {}, its oldest file", third.2)),
    ] {
        let error = unread(&url, position).await.unwrap_err();
        assert!(matches!(error, BinlogError::Purged { .. }) && error.to_string().contains(&missing), "{error}");
        assert!(error.hint().unwrap().contains("begin as a new pair"), "{:?}", error.hint());
    }
    assert_eq!(unread(&url, &third.0).await.unwrap().files, 1);
}
