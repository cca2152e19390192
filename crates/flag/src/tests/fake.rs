//! A `crossfade serve` in memory, by the test's own clock.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::link::{Connect, Socket};
use crate::{Builder, Flag, FlagClient, Phase};

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mood {
    Well,
    /// Nothing listens, and connections break.
    Gone,
    /// Takes every question, carries it out, and answers none.
    Mute,
    /// Waits so long before it looks, and so long again before it answers.
    Slow(Duration, Duration),
    Refusing,
    Says(u16, &'static str),
}

#[derive(Debug)]
pub struct Inside {
    pub flag: Flag,
    pub mood: Mood,
    /// What each has acknowledged, and until when it is waited for.
    pub instances: BTreeMap<String, (u64, Instant)>,
    /// Method, path and body of each question.
    pub asked: Vec<String>,
}

#[derive(Clone)]
pub struct Fake {
    inside: Arc<Mutex<Inside>>,
    changed: Arc<watch::Sender<()>>,
}

impl Fake {
    pub fn new(phase: Phase) -> Fake {
        let flag = Flag { version: 5, phase, fenced: false };
        let inside = Inside { flag, mood: Mood::Well, instances: BTreeMap::new(), asked: Vec::new() };
        Fake { inside: Arc::new(Mutex::new(inside)), changed: Arc::new(watch::Sender::new(())) }
    }

    pub fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("no test panics with it")
    }

    pub fn set(&self, version: u64, phase: Phase, fenced: bool) {
        self.inside().flag = Flag { version, phase, fenced };
        self.changed.send_replace(());
    }

    pub fn feel(&self, mood: Mood) {
        self.inside().mood = mood;
        self.changed.send_replace(());
    }

    /// What each live instance has acknowledged.
    pub fn acknowledged(&self) -> Vec<u64> {
        let now = Instant::now();
        self.inside().instances.values().filter(|(_, until)| *until > now).map(|(version, _)| *version).collect()
    }

    /// Waits for that, as long as it takes.
    pub async fn until_acknowledged(&self, versions: &[u64]) {
        while self.acknowledged() != versions {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    pub fn builder(&self) -> Builder {
        let fake = self.clone();
        let connect: Connect = Arc::new(move || {
            let fake = fake.clone();
            Box::pin(async move { fake.connection() })
        });
        FlagClient::builder("http://flag:8420").instance("web-1").over(connect)
    }

    fn connection(self) -> io::Result<Box<dyn Socket>> {
        if self.inside().mood == Mood::Gone {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let (near, far) = tokio::io::duplex(16 << 10);
        tokio::spawn(async move {
            let answering = self.clone();
            let service = service_fn(move |request| answering.clone().answer(request));
            tokio::select! {
                _ = http1::Builder::new().serve_connection(TokioIo::new(far), service) => {}
                () = self.until_gone() => {}
            }
        });
        Ok(Box::new(near))
    }

    async fn until_gone(&self) {
        let mut changes = self.changed.subscribe();
        while self.inside().mood != Mood::Gone {
            let _ = changes.changed().await;
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let path = head.uri.path_and_query().map_or("", |path| path.as_str()).to_owned();
        self.inside().asked.push(format!("{} {path} {}", head.method, String::from_utf8_lossy(&body)));
        let mood = self.inside().mood;
        match mood {
            Mood::Refusing => return Ok(told(503, r#"{"error":"the store is away"}"#)),
            Mood::Says(code, text) => return Ok(told(code, text)),
            Mood::Slow(before, _) => tokio::time::sleep(before).await,
            Mood::Well | Mood::Gone | Mood::Mute => {}
        }
        let answer = self.carry_out(&head.method, &path, &body).await;
        match mood {
            Mood::Slow(_, after) => tokio::time::sleep(after).await,
            Mood::Mute => std::future::pending().await,
            _ => {}
        }
        Ok(answer)
    }

    async fn carry_out(&self, method: &Method, path: &str, body: &[u8]) -> Response<Full<Bytes>> {
        let Some(name) = path.strip_prefix("/v1/flag/instances/") else { return self.flag(path).await };
        if method == Method::DELETE {
            self.inside().instances.remove(name);
            return told(204, "");
        }
        let body: serde_json::Value = serde_json::from_slice(body).expect("JSON");
        let (version, ttl) = (body["version"].as_u64().expect("a version"), body["ttl_ms"].as_u64().expect("a ttl"));
        let mut inside = self.inside();
        if version > inside.flag.version {
            return told(409, r#"{"error":"that version is not reached"}"#);
        }
        inside.instances.insert(name.to_owned(), (version, Instant::now() + Duration::from_millis(ttl)));
        document(inside.flag)
    }

    async fn flag(&self, path: &str) -> Response<Full<Bytes>> {
        let given = |key: &str| {
            let found = path.split(['?', '&']).find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='));
            found.map(|value| value.trim_end_matches("ms").parse::<u64>().expect("a number"))
        };
        let until = Instant::now() + Duration::from_millis(given("wait").unwrap_or(0));
        let mut changes = self.changed.subscribe();
        loop {
            let flag = self.inside().flag;
            if given("after") != Some(flag.version) {
                return document(flag);
            }
            tokio::select! {
                _ = changes.changed() => {}
                () = tokio::time::sleep_until(until) => return told(304, ""),
            }
        }
    }
}

fn document(flag: Flag) -> Response<Full<Bytes>> {
    let text = serde_json::json!({
        "pair": "users", "version": flag.version, "flag": flag.phase.flag(), "phase": flag.phase.as_str(), "fenced": flag.fenced,
    });
    told(200, &text.to_string())
}

fn told(code: u16, text: &str) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::new(Bytes::from(text.to_owned()))).expect("a code")
}
