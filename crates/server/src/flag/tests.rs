use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crossfade_message::{Flag, FlagInstance};
use crossfade_model::Phase;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, join_all};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{Ask, Entities, FlagStore, Flags, FlagsByGroup, ServerError, View};

/// A store in memory.
pub(crate) struct Kept {
    flag: Mutex<Result<Flag, String>>,
    instances: Mutex<Vec<FlagInstance>>,
    looks: AtomicUsize,
    /// Comes right after the next acknowledgement.
    comes: Mutex<Option<Flag>>,
}

impl Kept {
    fn new(version: u64, phase: Phase) -> Arc<Kept> {
        Kept::of(Ok(Flag { version, phase, fenced: false }))
    }

    pub(crate) fn away() -> Arc<Kept> {
        Kept::of(Err("the store is away".to_owned()))
    }

    fn of(flag: Result<Flag, String>) -> Arc<Kept> {
        Arc::new(Kept {
            flag: Mutex::new(flag),
            instances: Mutex::default(),
            looks: AtomicUsize::new(0),
            comes: Mutex::default(),
        })
    }

    pub(crate) fn flags(self: &Arc<Kept>) -> Flags {
        Flags::new("users", self.clone())
    }

    fn set(&self, flag: Result<Flag, String>) {
        *self.flag.lock().expect("no panic") = flag;
    }

    /// Whether it answers.
    fn is_there(&self) -> Result<(), String> {
        self.flag.lock().expect("no panic").clone().map(|_| ())
    }
}

impl FlagStore for Kept {
    fn flag(&self) -> BoxFuture<'_, Result<Flag, String>> {
        async {
            self.looks.fetch_add(1, SeqCst);
            self.flag.lock().expect("no panic").clone()
        }
        .boxed()
    }

    fn acknowledge<'a>(&'a self, instance: &'a str, version: u64, ttl: Duration) -> BoxFuture<'a, Result<(), String>> {
        async move {
            self.is_there()?;
            let mut instances = self.instances.lock().expect("no panic");
            instances.retain(|known| known.instance != instance);
            let expires_in_ms = ttl.as_millis() as u64;
            let (instance, expires_at) = (instance.to_owned(), chrono::DateTime::UNIX_EPOCH);
            instances.push(FlagInstance { instance, version, expires_at, expires_in_ms });
            if let Some(flag) = self.comes.lock().expect("no panic").take() {
                self.set(Ok(flag));
            }
            Ok(())
        }
        .boxed()
    }

    fn forget<'a>(&'a self, instance: &'a str) -> BoxFuture<'a, Result<(), String>> {
        async move {
            self.is_there()?;
            self.instances.lock().expect("no panic").retain(|known| known.instance != instance);
            Ok(())
        }
        .boxed()
    }

    fn instances(&self) -> BoxFuture<'_, Result<Vec<FlagInstance>, String>> {
        async {
            self.is_there()?;
            Ok(self.instances.lock().expect("no panic").clone())
        }
        .boxed()
    }
}

struct Served {
    address: std::net::SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), ServerError>>,
}

struct Answer {
    code: u16,
    head: String,
    body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

impl Served {
    async fn start(kept: &Arc<Kept>) -> Served {
        Served::start_with(vec![(None, kept.flags())]).await
    }

    async fn start_with(flags: FlagsByGroup) -> Served {
        let ask: Ask = Arc::new(|| Box::pin(async { Err("nobody asks for that".to_owned()) }));
        let listener = crate::listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = CancellationToken::new();
        let told = (flags, Entities::new("users", None));
        let serving = tokio::spawn(crate::serve(listener, View::new(ask), told, stop.clone()));
        Served { address, stop, serving }
    }

    async fn ask(&self, method: &str, path: &str, header: &str, body: &str) -> Answer {
        let mut connection = TcpStream::connect(self.address).await.expect("it listens");
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{header}Content-Length: {length}\r\n\r\n{body}"
        );
        connection.write_all(request.as_bytes()).await.expect("it takes the request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
        Answer { code, head: head.to_ascii_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, "", "").await
    }

    async fn put(&self, instance: &str, body: &str) -> Answer {
        self.ask("PUT", &format!("/v1/flag/instances/{instance}"), "Content-Type: application/json\r\n", body).await
    }

    async fn end(self) {
        self.stop.cancel();
        self.serving.await.expect("it does not panic").expect("it ends well");
    }
}

#[tokio::test]
async fn the_flag_is_told_with_what_it_means() {
    let kept = Kept::new(7, Phase::OldOnly);
    let served = Served::start(&kept).await;
    for (phase, told, writes_to) in [
        (Phase::OldOnly, (0, false, true, false), "old"),
        (Phase::WriteBoth, (1, false, true, true), "old"),
        (Phase::ReadNew, (2, true, true, true), "new"),
        (Phase::NewOnly, (3, true, false, true), "new"),
    ] {
        for fenced in [false, true] {
            kept.set(Ok(Flag { version: 7, phase, fenced }));
            let answer = served.get("/v1/flag").await;
            assert_eq!(answer.code, 200);
            assert!(answer.head.contains("etag: \"7\""), "{}", answer.head);
            let (flag, is_read_new, is_write_old, is_write_new) = told;
            let expected = json!({
                "pair": "users", "version": 7, "flag": flag, "phase": phase.as_str(), "fenced": fenced,
                "is_read_new": is_read_new, "is_write_old": is_write_old, "is_write_new": is_write_new,
                "writes_to": (!fenced).then_some(writes_to),
            });
            assert_eq!(answer.json(), expected);
        }
    }
    let known = served.ask("GET", "/v1/flag", "If-None-Match: \"7\"\r\n", "").await;
    assert_eq!((known.code, known.body.as_str()), (304, ""));
    assert_eq!(served.ask("GET", "/v1/flag", "If-None-Match: \"6\"\r\n", "").await.code, 200);
    served.end().await;
}

#[tokio::test]
async fn who_waits_is_told_as_soon_as_it_changes() {
    let kept = Kept::new(7, Phase::WriteBoth);
    let served = Served::start(&kept).await;
    assert_eq!(served.get("/v1/flag?after=6&wait=60s").await.code, 200, "it has changed already");
    assert_eq!(served.get("/v1/flag?after=9&wait=60s").await.code, 200, "it was restored, say");
    let begun = Instant::now();
    let known = served.get("/v1/flag?after=7&wait=300ms").await;
    assert_eq!(known.code, 304);
    assert!(known.head.contains("etag: \"7\""), "{}", known.head);
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());

    let looks = kept.looks.load(SeqCst);
    let waiting = join_all((0..50).map(|_| served.get("/v1/flag?after=7&wait=60s")));
    let changing = async {
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        kept.set(Ok(Flag { version: 8, phase: Phase::ReadNew, fenced: false }));
        Instant::now()
    };
    let (told, changed) = tokio::join!(waiting, changing);
    assert!(changed.elapsed() < Duration::from_secs(5), "{:?}", changed.elapsed());
    for answer in told {
        assert_eq!((answer.code, &answer.json()["version"]), (200, &json!(8)));
    }
    let looks = kept.looks.load(SeqCst) - looks;
    assert!(looks < 100, "the store was asked {looks} times for 50 that waited a second");
    served.end().await;
}

#[tokio::test]
async fn who_waits_does_not_keep_the_server_from_ending() {
    let kept = Kept::new(7, Phase::WriteBoth);
    let served = Served::start(&kept).await;
    let stop = served.stop.clone();
    let ending = async {
        while kept.looks.load(SeqCst) == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.cancel();
    };
    let begun = Instant::now();
    let (answer, ()) = tokio::join!(served.get("/v1/flag?after=7&wait=60s"), ending);
    assert_eq!(answer.code, 304);
    served.end().await;
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn instances_register_acknowledge_and_leave() {
    let kept = Kept::new(7, Phase::WriteBoth);
    let served = Served::start(&kept).await;
    let first = served.put("web-1", r#"{"version":7,"ttl_ms":10000}"#).await;
    assert_eq!((first.code, &first.json()["version"], &first.json()["writes_to"]), (200, &json!(7), &json!("old")));
    let expires_in_ms = first.json()["expires_in_ms"].as_u64().unwrap_or_default();
    assert!((5_000..=10_000).contains(&expires_in_ms), "{expires_in_ms}");
    assert_eq!(served.put("web-2", r#"{"version":6,"ttl_ms":2000}"#).await.code, 200);
    let list = || async { served.get("/v1/flag/instances").await.json() };
    let expected = json!([
        { "instance": "web-1", "version": 7, "expires_in_ms": 10_000 },
        { "instance": "web-2", "version": 6, "expires_in_ms": 2_000 },
    ]);
    assert_eq!(list().await, expected);
    let metrics = served.get("/metrics").await.body;
    for sample in [
        "crossfade_up 0.0",
        "crossfade_flag 1.0",
        "crossfade_flag_version 7.0",
        "crossfade_flag_fenced 0.0",
        "crossfade_flag_instances{state=\"current\"} 1.0",
        "crossfade_flag_instances{state=\"behind\"} 1.0",
    ] {
        assert!(metrics.contains(sample), "no `{sample}` in\n{metrics}");
    }
    for _ in 0..2 {
        let left = served.ask("DELETE", "/v1/flag/instances/web-1", "", "").await;
        assert_eq!((left.code, left.body.as_str()), (204, ""));
    }
    assert_eq!(list().await.as_array().map(Vec::len), Some(1));
    served.end().await;
}

#[tokio::test]
async fn a_group_has_a_flag_and_instances_of_its_own() {
    let (all, billing) = (Kept::new(7, Phase::WriteBoth), Kept::new(9, Phase::ReadNew));
    let of_billing = Flags::new("users/billing", billing.clone());
    let served = Served::start_with(vec![(None, all.flags()), (Some("billing".to_owned()), of_billing)]).await;
    let told = async |path| served.get(path).await.json();
    assert_eq!(told("/v1/flag").await["writes_to"], "old");
    let group = told("/groups/billing/v1/flag").await;
    assert_eq!(
        (&group["pair"], &group["version"], &group["writes_to"]),
        (&json!("users/billing"), &json!(9), &json!("new"))
    );
    assert_eq!(served.get("/groups/other/v1/flag").await.code, 404);
    let body = r#"{"version":9,"ttl_ms":10000}"#;
    assert_eq!(served.ask("PUT", "/groups/billing/v1/flag/instances/b-1", "", body).await.code, 200);
    assert_eq!(told("/groups/billing/v1/flag/instances").await.as_array().map(Vec::len), Some(1));
    assert_eq!(told("/v1/flag/instances").await, json!([]));
    let metrics = served.get("/metrics").await.body;
    for sample in [
        "crossfade_flag 1.0",
        "crossfade_flag{group=\"billing\"} 2.0",
        "crossfade_flag_instances{group=\"billing\",state=\"current\"} 1.0",
    ] {
        assert!(metrics.contains(sample), "no `{sample}` in\n{metrics}");
    }
    served.end().await;
}

#[tokio::test]
async fn who_registers_is_told_of_a_fence_that_did_not_wait_for_him() {
    let kept = Kept::new(7, Phase::WriteBoth);
    let served = Served::start(&kept).await;
    assert_eq!(served.get("/v1/flag").await.json()["version"], 7);
    *kept.comes.lock().expect("no panic") = Some(Flag { version: 8, phase: Phase::WriteBoth, fenced: true });
    let told = served.put("web-1", r#"{"version":7,"ttl_ms":10000}"#).await.json();
    assert_eq!((&told["version"], &told["fenced"], &told["writes_to"]), (&json!(8), &json!(true), &Value::Null));
    served.end().await;
}

#[tokio::test]
async fn nobody_acknowledges_what_is_not_there_yet() {
    let kept = Kept::new(7, Phase::WriteBoth);
    let served = Served::start(&kept).await;
    let refused = served.put("web-1", r#"{"version":8,"ttl_ms":10000}"#).await;
    assert_eq!(refused.code, 409);
    assert!(refused.body.contains("version 8 of the flag is not there: it has version 7"), "{}", refused.body);
    assert!(kept.instances.lock().expect("no panic").is_empty());
    kept.set(Ok(Flag { version: 8, phase: Phase::ReadNew, fenced: false }));
    assert_eq!(served.put("web-1", r#"{"version":8,"ttl_ms":10000}"#).await.code, 200);
    served.end().await;
}

#[tokio::test]
async fn all_that_is_wrong_is_told_with_400() {
    let kept = Kept::new(7, Phase::WriteBoth);
    let served = Served::start(&kept).await;
    let told = served.get("/v1/flag?after=x&wait=2h&why").await;
    assert_eq!(told.code, 400);
    for part in ["`after` is no version", "`wait` is at most 60s", "no parameter `why`"] {
        assert!(told.json()["error"].as_str().is_some_and(|error| error.contains(part)), "{}", told.body);
    }
    let told = served.put("a%20b", r#"{"ttl_ms":7}"#).await;
    assert_eq!(told.code, 400);
    for part in ["no name of an instance", "`version` must be", "`ttl_ms` of 7 is not within"] {
        assert!(told.json()["error"].as_str().is_some_and(|error| error.contains(part)), "{}", told.body);
    }
    let told = served.put("%ff", "{").await;
    assert_eq!(told.code, 400);
    assert!(told.json()["error"].as_str().is_some_and(|error| error.contains("no JSON")), "{}", told.body);
    assert_eq!(served.ask("DELETE", "/v1/flag/instances/a%20b", "", "").await.code, 400);
    served.end().await;
}

#[tokio::test]
async fn a_store_that_is_away_gives_no_flag() {
    let kept = Kept::away();
    let served = Served::start(&kept).await;
    for answer in [
        served.get("/v1/flag").await,
        served.get("/v1/flag?after=7&wait=60s").await,
        served.get("/v1/flag/instances").await,
        served.put("web-1", r#"{"version":7,"ttl_ms":10000}"#).await,
        served.ask("DELETE", "/v1/flag/instances/web-1", "", "").await,
    ] {
        assert_eq!(answer.code, 503);
        assert_eq!(answer.json(), json!({ "error": "the store is away" }));
    }
    assert!(!served.get("/metrics").await.body.contains("crossfade_flag"), "what is not known has no value");
    kept.set(Ok(Flag { version: 7, phase: Phase::NewOnly, fenced: false }));
    assert_eq!(served.get("/v1/flag").await.code, 200, "every answer is from the store");
    served.end().await;
}
