//! The entities' client, by the test's own clock.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, sleep};

use crate::link::{Connect, Socket};
use crate::{EntityBuilder, EntityClient, FlagError, Side};

const LEASE_MS: u64 = 2_000;

#[derive(Debug)]
struct Inside {
    side: &'static str,
    version: u64,
    fenced: bool,
    /// Before it looks, and again before it answers.
    slow: Duration,
    says: Option<(u16, &'static str)>,
    gone: bool,
    asked: Vec<String>,
}

/// A `crossfade serve` in memory, of which all entities are alike.
#[derive(Clone)]
struct Fake(Arc<Mutex<Inside>>);

impl Fake {
    fn new() -> Fake {
        let inside = Inside {
            side: "old",
            version: 1,
            fenced: false,
            slow: Duration::ZERO,
            says: None,
            gone: false,
            asked: Vec::new(),
        };
        Fake(Arc::new(Mutex::new(inside)))
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().expect("no test panics with it")
    }

    fn set(&self, version: u64, side: &'static str, fenced: bool) {
        let mut inside = self.inside();
        (inside.version, inside.side, inside.fenced) = (version, side, fenced);
    }

    fn asked(&self) -> usize {
        self.inside().asked.len()
    }

    fn builder(&self) -> EntityBuilder {
        let fake = self.clone();
        let connect: Connect = Arc::new(move || {
            let fake = fake.clone();
            Box::pin(async move {
                if fake.inside().gone {
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                let (near, far) = tokio::io::duplex(16 << 10);
                let service = service_fn(move |request| fake.clone().answer(request));
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(far), service));
                Ok(Box::new(near) as Box<dyn Socket>)
            })
        });
        EntityClient::builder("http://flag:8420").pair("users").over(connect)
    }

    fn client(&self) -> EntityClient {
        self.builder().build().expect("a client")
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let path = request.uri().path_and_query().map_or("", |path| path.as_str()).to_owned();
        self.inside().asked.push(path.clone());
        let Inside { slow, says, .. } = *self.inside();
        sleep(slow).await;
        if let Some((code, text)) = says {
            return Ok(told(code, text));
        }
        let given = |key: &str| {
            let found = path.split(['?', '&']).find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            found.map(|value| value.trim_end_matches("ms").parse::<u64>().expect("a number"))
        };
        let until = Instant::now() + Duration::from_millis(given("wait").unwrap_or(0));
        while given("after") == Some(self.inside().version) && Instant::now() < until {
            sleep(Duration::from_millis(10)).await;
        }
        let id = path["/v1/entities/".len()..].split('?').next().unwrap_or_default().to_owned();
        let answer = {
            let Inside { side, version, fenced, .. } = *self.inside();
            let valid_for_ms = if fenced { 0 } else { LEASE_MS };
            let text = serde_json::json!({
                "pair": "users", "entity": id, "side": side, "version": version, "fenced": fenced, "valid_for_ms": valid_for_ms,
            });
            if given("after") == Some(version) { told(304, "") } else { told(200, &text.to_string()) }
        };
        sleep(slow).await;
        Ok(answer)
    }
}

fn told(code: u16, text: &str) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::new(Bytes::from(text.to_owned()))).expect("a code")
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_used_as_long_as_it_counts_and_no_longer() {
    let fake = Fake::new();
    let client = fake.client();
    assert_eq!(client.side("42").await, Ok(Side::Old));
    fake.set(2, "new", false);
    sleep(Duration::from_millis(LEASE_MS - 10)).await;
    assert_eq!((client.side("42").await, fake.asked()), (Ok(Side::Old), 1));
    sleep(Duration::from_millis(20)).await;
    assert_eq!((client.side("42").await, fake.asked()), (Ok(Side::New), 2));
}

#[tokio::test(start_paused = true)]
async fn an_answer_counts_from_before_it_was_asked_for() {
    let fake = Fake::new();
    fake.inside().slow = Duration::from_millis(400);
    let client = fake.client();
    let asked = Instant::now();
    let guard = client.begin_write("42").await.expect("leave");
    assert!(asked.elapsed() >= Duration::from_millis(800));
    guard.expired().await;
    // Four fifths of two seconds after the question was sent, not after the answer came.
    let ended = asked.elapsed();
    assert!((Duration::from_millis(1_600)..Duration::from_millis(1_610)).contains(&ended), "{ended:?}");
    assert!(!guard.is_still_valid() && guard.remaining().is_none());
}

#[tokio::test(start_paused = true)]
async fn nobody_is_let_in_by_an_answer_that_is_nearly_over() {
    let fake = Fake::new();
    let client = fake.client();
    let _guard = client.begin_write("42").await.expect("leave");
    sleep(Duration::from_millis(LEASE_MS * 3 / 5)).await;
    assert_eq!(client.side("42").await, Ok(Side::Old));
    assert_eq!(fake.asked(), 1, "for reads it still counts");
    let guard = client.begin_write("42").await.expect("leave");
    assert_eq!(fake.asked(), 2);
    assert!(guard.remaining().is_some_and(|left| left > Duration::from_millis(1_500)));
}

#[tokio::test(start_paused = true)]
async fn a_write_waits_at_a_fence_and_follows_the_entity() {
    let fake = Fake::new();
    fake.set(2, "old", true);
    let client = fake.client();
    assert_eq!(client.side("42").await, Ok(Side::Old), "it is read meanwhile");
    let lifting = async {
        sleep(Duration::from_secs(3)).await;
        fake.set(4, "new", false);
    };
    let asked = Instant::now();
    let (guard, ()) = tokio::join!(client.begin_write("42"), lifting);
    let guard = guard.expect("leave");
    assert_eq!((guard.side(), guard.version()), (Side::New, 4));
    assert!(asked.elapsed() < Duration::from_millis(3_100), "{:?}", asked.elapsed());
    assert!(fake.asked() < 8, "it waits at the server: {:?}", fake.inside().asked);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_stays_is_an_error_in_the_end() {
    let fake = Fake::new();
    fake.set(2, "old", true);
    let client = fake.builder().fence_wait(Duration::from_secs(5)).build().expect("a client");
    let asked = Instant::now();
    let error = client.begin_write("42").await.expect_err("it is fenced");
    assert!(matches!(&error, FlagError::EntityFenced { entity, version: 2, .. } if entity == "42"), "{error}");
    assert!((Duration::from_secs(5)..Duration::from_secs(6)).contains(&asked.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_long_write_asks_again_and_learns_of_a_fence() {
    let fake = Fake::new();
    let client = fake.client();
    let guard = client.begin_write("42").await.expect("leave");
    for _ in 0..5 {
        sleep(Duration::from_secs(1)).await;
        guard.extend().await.expect("it is as it was");
        assert!(guard.is_still_valid());
    }
    fake.set(2, "old", true);
    sleep(Duration::from_millis(10)).await;
    let error = guard.extend().await.expect_err("it is fenced");
    assert!(matches!(error, FlagError::EntityChanged { version: 2, .. }), "{error}");
    guard.expired().await;
    fake.set(3, "old", false);
    // Undone: nothing has moved, and yet somebody may have written in between.
    assert!(guard.extend().await.is_err() && !guard.is_still_valid());
}

#[tokio::test(start_paused = true)]
async fn many_who_ask_at_once_ask_once() {
    let fake = Fake::new();
    fake.inside().slow = Duration::from_millis(50);
    let client = fake.client();
    let all = (0..50).map(|_| {
        let client = client.clone();
        tokio::spawn(async move { client.begin_write("42").await.map(|guard| guard.side()) })
    });
    for asked in all.collect::<Vec<_>>() {
        assert_eq!(asked.await.expect("no panic"), Ok(Side::Old));
    }
    assert_eq!(fake.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_is_bounded() {
    let fake = Fake::new();
    let client = fake.builder().most_known(10).build().expect("a client");
    for id in 0..100 {
        client.side(&id.to_string()).await.expect("a side");
        assert!(client.known() <= 10);
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_valid_answer_nothing_is_known() {
    let fake = Fake::new();
    let client = fake.client();
    assert_eq!(client.side("42").await, Ok(Side::Old));
    for (code, text) in [
        (503, r#"{"error":"the store is away"}"#),
        (404, r#"{"error":"no `[entity]`"}"#),
        (304, ""),
        (200, "<html>"),
        (200, r#"{"pair":"others","entity":"42","side":"new","version":9,"fenced":false,"valid_for_ms":2000}"#),
        (200, r#"{"pair":"users","entity":"43","side":"new","version":9,"fenced":false,"valid_for_ms":2000}"#),
    ] {
        fake.inside().says = Some((code, text));
        sleep(Duration::from_millis(LEASE_MS)).await;
        let (read, write) = (client.side("42").await, client.begin_write("42").await);
        assert!(matches!(read, Err(FlagError::EntityUnknown { .. })), "{code} {text}: {read:?}");
        assert!(matches!(write, Err(FlagError::EntityUnknown { .. })), "{code} {text}: {write:?}");
    }
    fake.inside().says = None;
    assert_eq!(client.side("42").await, Ok(Side::Old));
    fake.inside().gone = true;
    let fresh = fake.client();
    assert!(matches!(fresh.side("42").await, Err(FlagError::EntityUnknown { .. })));
    assert!(matches!(client.side("").await, Err(FlagError::Setup { .. })));
    let wrong = EntityClient::builder("https://x").most_known(0).build();
    assert!(matches!(wrong, Err(FlagError::Setup { problems }) if problems.len() == 2));
}
