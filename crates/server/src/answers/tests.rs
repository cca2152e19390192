use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use crossfade_message::{ConflictCounts, TagProof, WaitCounts};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

use crate::flag::tests::Kept;
use crate::{Ask, Entities, FlagLine, RoundLine, Status, StoreLine, StreamLine, VerifyLine, View};

fn line(stream: &str, state: &str, reason: Option<&str>) -> StreamLine {
    StreamLine {
        stream: stream.to_owned(),
        state: state.to_owned(),
        reason: reason.map(str::to_owned),
        since: None,
        holder: None,
        standby: Vec::new(),
        position: String::new(),
        lag_seconds: Some(1.5),
        unread_kept_seconds: None,
        lag_messages: 7,
        rows_per_second: 0,
        last_seq: 0,
        settled_seq: 0,
        captured: 10,
        applied: 3,
        echoes: 4,
        conflicts_won: 1,
        conflicts_lost: 2,
        judged_by_sight: 5,
        judged_by_look_up: 6,
        judged_by_waiting: 7,
        waits: WaitCounts {
            count: 9,
            total_micros: 2_500_000,
            longest_micros: 2_000_000,
            within_10_ms: 4,
            within_100_ms: 6,
            within_1_s: 8,
        },
        conflicts: BTreeMap::from([("app.\"t".to_owned(), ConflictCounts { won: 1, lost: 1, stale: 1, authority: 1 })]),
        tag: TagProof::default(),
        slowest_ms: 0,
        open_failures: 0,
        held: 0,
        caught_up: false,
        failed: false,
    }
}

fn status(streams: Vec<StreamLine>) -> Status {
    let at = |seconds| chrono::DateTime::from_timestamp(seconds, 0);
    let last = RoundLine {
        verification: 7,
        begun_at: at(1_000).unwrap_or_default(),
        ended_at: at(2_000),
        tables: 3,
        tables_done: 3,
        rows: 500,
        differences: 4,
        unconfirmed: 0,
    };
    let verify = VerifyLine { on: true, running: None, last: Some(last) };
    Status {
        pair: "p".to_owned(),
        phase: "old_only".to_owned(),
        flag: FlagLine::default(),
        groups: Vec::new(),
        end: None,
        streams,
        store: StoreLine { bytes: 1, messages: 2, growth_per_day: 3 },
        verify,
    }
}

/// Answers of a server that knows `seen`, each as its code and body.
async fn answers<const N: usize>(seen: Result<Status, String>, paths: [&str; N]) -> [(u16, String); N] {
    let ask: Ask = Arc::new(move || {
        let seen = seen.clone();
        Box::pin(async move { seen })
    });
    let listener = crate::listen(([127, 0, 0, 1], 0).into()).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let stop = CancellationToken::new();
    let serving = tokio::spawn(crate::serve(
        listener,
        View::new(ask),
        (vec![(None, Kept::away().flags())], Entities::new("users", None)),
        stop.clone(),
    ));
    let mut all = Vec::new();
    for path in paths {
        let mut connection = TcpStream::connect(address).await.expect("it listens");
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        connection.write_all(request.as_bytes()).await.expect("it takes the request");
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
        all.push((code, body.to_owned()));
    }
    stop.cancel();
    serving.await.expect("it does not panic").expect("it ends well");
    all.try_into().expect("one answer for each")
}

async fn ready(streams: Vec<StreamLine>, path: &str) -> (u16, serde_json::Value) {
    let [(code, body)] = answers(Ok(status(streams)), [path]).await;
    (code, serde_json::from_str(&body).expect("JSON"))
}

#[tokio::test]
async fn p7_only_what_runs_is_ready() {
    let (running, behind) = (|| line("forward/old", "running", None), || line("reverse/new", "catching-up", None));
    assert_eq!(ready(vec![running(), behind()], "/readyz").await.0, 200);
    for state in ["standby", "starting", "held", "retrying", "paused", "stopped", "resharding"] {
        let (code, told) = ready(vec![running(), line("reverse/new", state, Some("why"))], "/readyz").await;
        assert_eq!((code, &told["ready"]), (503, &false.into()), "{state}");
        assert_eq!(told["streams"][1]["state"], state);
        assert_eq!(told["streams"][1]["reason"], "why");
    }
}

#[tokio::test]
async fn what_is_off_is_not_waited_for() {
    let off = || line("reverse/new", "off", Some("declared off"));
    assert_eq!(ready(vec![line("forward/old", "running", None), off()], "/readyz").await.0, 200);
    assert_eq!(ready(vec![off()], "/readyz").await.0, 503);
    assert_eq!(ready(Vec::new(), "/readyz").await.0, 503);
}

#[tokio::test]
async fn one_direction_is_asked_for() {
    let both = || vec![line("forward/old", "running", None), line("reverse/new", "retrying", Some("why"))];
    assert_eq!(ready(both(), "/readyz?direction=forward").await.0, 200);
    assert_eq!(ready(both(), "/readyz?direction=reverse").await.0, 503);
    let (code, told) = ready(both(), "/readyz?direction=sideways").await;
    assert_eq!(code, 503);
    assert!(told["reason"].as_str().is_some_and(|reason| reason.contains("sideways")), "{told}");
}

#[tokio::test]
async fn p7_what_is_not_known_is_not_ready() {
    let away = Err("the store is away".to_owned());
    let [healthz, readyz, metrics, status] = answers(away, ["/healthz", "/readyz", "/metrics", "/v1/status"]).await;
    assert_eq!(healthz.0, 200);
    assert_eq!(readyz.0, 503);
    assert!(readyz.1.contains("the store is away"), "{}", readyz.1);
    assert_eq!(metrics.0, 200);
    assert!(metrics.1.contains("crossfade_up 0"), "{}", metrics.1);
    assert_eq!(status.0, 503);
}

#[tokio::test]
async fn metrics_tell_what_status_tells() {
    let seen = Ok(status(vec![line("forward/old", "running", None)]));
    let [(code, text), (_, told)] = answers(seen, ["/metrics", "/v1/status"]).await;
    assert_eq!(code, 200);
    for sample in [
        "crossfade_up 1.0",
        "crossfade_stream_ready{stream=\"forward/old\"} 1.0",
        "crossfade_stream_state{stream=\"forward/old\",state=\"running\"} 1.0",
        "crossfade_lag_seconds{stream=\"forward/old\"} 1.5",
        "crossfade_captured_changes_total{stream=\"forward/old\"} 10",
        "crossfade_conflicts_total{stream=\"forward/old\",table=\"app.\\\"t\",outcome=\"stale\"} 1",
        "crossfade_authority_conflicts_total{stream=\"forward/old\",table=\"app.\\\"t\"} 1",
        "crossfade_judged_changes_total{stream=\"forward/old\",by=\"look-up\"} 6",
        "crossfade_hold_wait_seconds_sum{stream=\"forward/old\"} 2.5",
        "crossfade_hold_wait_seconds_bucket{le=\"0.1\",stream=\"forward/old\"} 6",
        "crossfade_hold_wait_seconds_bucket{le=\"+Inf\",stream=\"forward/old\"} 9",
        "crossfade_store_messages 2.0",
        "crossfade_verify_continuous 1.0",
        "crossfade_verify_round_ended_timestamp_seconds 2000.0",
        "crossfade_verify_round_differences 4.0",
        "# EOF",
    ] {
        assert!(text.contains(sample), "no `{sample}` in\n{text}");
    }
    assert!(!text.contains("unread_kept_seconds{"), "what is not known has no value\n{text}");
    assert!(told.contains("\"lag_messages\":7"), "{told}");
}

#[tokio::test]
async fn many_questions_are_one_look() {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = looks.clone();
    let ask: Ask = Arc::new(move || {
        counted.fetch_add(1, SeqCst);
        Box::pin(async { Ok(status(Vec::new())) })
    });
    let view = View::new(ask);
    for _ in 0..50 {
        assert!(view.look().await.is_ok());
    }
    assert_eq!(looks.load(SeqCst), 1);
}

#[tokio::test]
async fn a_store_that_does_not_answer_is_not_waited_for() {
    let ask: Ask = Arc::new(|| Box::pin(std::future::pending()));
    let told = View::with_limit(ask, Duration::from_millis(10)).look().await;
    assert!(told.is_err_and(|reason| reason.contains("does not answer within 10ms")));
}
