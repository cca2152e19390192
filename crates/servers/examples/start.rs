//! Starts a private server and shows how long that takes: `cargo run -p crossfade-servers --example start [mysql|mariadb]`.
//! It runs until Enter is pressed.

use std::time::Instant;

use crossfade_servers::{Flavor, Server};

#[tokio::main]
async fn main() -> Result<(), crossfade_servers::Error> {
    let flavor = match std::env::args().nth(1).as_deref() {
        Some("mariadb") => Flavor::MariaDb,
        _ => Flavor::MySql,
    };
    let began = Instant::now();
    let server = Server::builder(flavor).start().await?;
    println!("{} at {} after {:?}", server.version(), server.root_url(), began.elapsed());
    println!("socket {}, error log {}", server.socket().display(), server.error_log().display());
    println!("press Enter to end it");
    let _ = std::io::stdin().read_line(&mut String::new());
    let began = Instant::now();
    drop(server);
    println!("gone after {:?}", began.elapsed());
    Ok(())
}
