//! Row events of real servers, decoded, against the servers' own answers and against a second reader.
//!
//! `cargo test -p crossfade-binlog --test types_real -- --nocapture` prints the type matrix.

mod cases;
mod documents;
mod hostile;
mod images;
mod judge;
mod log;
mod matrix;
mod second_reader;

use crossfade_servers::{Flavor, SharedPair};

#[tokio::test]
async fn every_type_of_mysql_reads_as_the_server_answers() {
    let pair = SharedPair::get(Flavor::MySql).await;
    matrix::run(pair.old(), &pair.schema("types")).await;
}

#[tokio::test]
async fn every_type_of_mariadb_reads_as_the_server_answers() {
    let pair = SharedPair::get(Flavor::MariaDb).await;
    matrix::run(pair.old(), &pair.schema("types")).await;
}
