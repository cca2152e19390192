use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

use super::*;

const COMMIT: &[u8] = b"\x07\0\0\0\x03COMMIT";
const LONG: Duration = Duration::from_secs(10);
const MOMENT: Duration = Duration::from_millis(150);

/// A server that answers every lot of bytes with the same, and tells what it has got.
async fn echo() -> (u16, watch::Receiver<Vec<u8>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (got, told) = watch::channel(Vec::new());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let got = got.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(count @ 1..) = client.read(&mut bytes).await {
                    got.send_modify(|got| got.extend_from_slice(&bytes[..count]));
                    client.write_all(&bytes[..count]).await.unwrap();
                }
            });
        }
    });
    (port, told)
}

async fn connected(proxy: &Proxy) -> TcpStream {
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap();
    assert_eq!(ask(&mut client, b"hello").await, b"hello");
    client
}

async fn ask(client: &mut TcpStream, question: &[u8]) -> Vec<u8> {
    client.write_all(question).await.unwrap();
    let mut answer = vec![0; question.len()];
    timeout(LONG, client.read_exact(&mut answer)).await.unwrap().unwrap();
    answer
}

/// Whether the connection has ended for the client.
async fn ends(client: &mut TcpStream) -> bool {
    matches!(timeout(LONG, client.read(&mut [0; 16])).await, Ok(Ok(0) | Err(_)))
}

#[tokio::test]
async fn bytes_go_through_until_they_are_cut() {
    let (port, _) = echo().await;
    let proxy = Proxy::start(port).await.unwrap();
    let mut client = connected(&proxy).await;
    proxy.cut();
    assert!(ends(&mut client).await);
    connected(&proxy).await;
    let seen = proxy.incidents();
    assert_eq!((seen.connections, seen.cut), (2, 1));
}

#[tokio::test]
async fn a_half_open_connection_says_nothing_and_new_ones_are_whole() {
    for (lost, arrives) in [(Lost::Answers, true), (Lost::Requests, false), (Lost::Both, false)] {
        let (port, mut told) = echo().await;
        let proxy = Proxy::start(port).await.unwrap();
        let mut client = connected(&proxy).await;
        proxy.half_open(lost);
        client.write_all(b"anybody?").await.unwrap();
        assert!(timeout(MOMENT, client.read(&mut [0; 16])).await.is_err(), "{lost:?}: neither an answer nor an end");
        let heard = timeout(MOMENT, told.wait_for(|got| got.ends_with(b"anybody?"))).await.is_ok();
        assert_eq!(heard, arrives, "{lost:?}");
        assert_eq!(proxy.incidents().half_open, 1);
        connected(&proxy).await;
    }
}

#[tokio::test]
async fn a_commit_meets_its_fate() {
    let (port, mut told) = echo().await;
    let proxy = Proxy::start(port).await.unwrap();

    proxy.next_commit(CommitFate::AnswerLost);
    let mut client = connected(&proxy).await;
    client.write_all(COMMIT).await.unwrap();
    assert!(ends(&mut client).await);
    assert!(told.borrow().ends_with(COMMIT), "it has arrived");

    proxy.next_commit(CommitFate::NeverSent);
    let mut client = connected(&proxy).await;
    client.write_all(COMMIT).await.unwrap();
    assert!(ends(&mut client).await);
    assert!(told.borrow().ends_with(b"hello"), "it has not arrived");

    proxy.next_commit(CommitFate::SentLate(MOMENT));
    let mut client = connected(&proxy).await;
    let begun = Instant::now();
    client.write_all(COMMIT).await.unwrap();
    assert!(ends(&mut client).await && begun.elapsed() < MOMENT);
    timeout(LONG, told.wait_for(|got| got.ends_with(COMMIT))).await.unwrap().unwrap();
    assert!(begun.elapsed() >= MOMENT);

    proxy.next_commit(CommitFate::Delayed(MOMENT));
    let mut client = connected(&proxy).await;
    let begun = Instant::now();
    assert_eq!(ask(&mut client, COMMIT).await, COMMIT);
    assert!(begun.elapsed() >= MOMENT);
    // With no fate left, a COMMIT is a statement like any other.
    assert_eq!(ask(&mut client, COMMIT).await, COMMIT);
    assert_eq!((proxy.incidents().commits, proxy.open_fates()), (4, 0));
}

#[tokio::test]
async fn what_is_slow_or_in_pieces_arrives_whole() {
    let (port, _) = echo().await;
    let proxy = Proxy::start(port).await.unwrap();
    let mut client = connected(&proxy).await;
    let question: Vec<u8> = (0..=255).cycle().take(5_000).collect();
    proxy.carry(Carriage::Pieces { longest_delay: Duration::from_millis(2) });
    assert_eq!(ask(&mut client, &question).await, question);
    assert!(proxy.incidents().delayed > 10);
    proxy.carry(Carriage::Slow { bytes_per_second: 20_000 });
    let begun = Instant::now();
    assert_eq!(ask(&mut client, &question).await, question);
    assert!(begun.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn its_url_leads_through_it_in_the_clear() {
    let proxy = Proxy::start(3306).await.unwrap();
    let through = |options| format!("mysql://u:p@127.0.0.1:{}/?{options}ssl-mode=DISABLED", proxy.port());
    assert_eq!(proxy.url("mysql://u:p@127.0.0.1:3306").unwrap(), through(""));
    assert_eq!(proxy.url("mysql://u:p@127.0.0.1:3306/?ssl-ca=x").unwrap(), through("ssl-ca=x&"));
    assert!(proxy.url("mysql://u:p@127.0.0.1:3307").is_err());
    assert!(proxy.url("mysql://u:p@127.0.0.1:3306?ssl-mode=REQUIRED").is_err());
}
