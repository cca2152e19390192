use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::Response;
use crossfade_message::EntityAnswer;
use crossfade_model::{EntityKey, Side};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Entities, EntityStore, answers};

/// A store in memory, with one entity.
struct Kept(Mutex<Result<EntityAnswer, String>>);

impl EntityStore for Kept {
    fn entity<'a>(&'a self, _: &'a EntityKey) -> BoxFuture<'a, Result<EntityAnswer, String>> {
        async { self.0.lock().expect("no panic").clone() }.boxed()
    }
}

fn answer(version: u64, side: Side, fenced: bool) -> EntityAnswer {
    let valid_for = if fenced { Duration::ZERO } else { Duration::from_secs(2) };
    EntityAnswer { side, version, fenced, valid_for }
}

fn kept(answer: EntityAnswer) -> (Arc<Kept>, Entities) {
    let kept = Arc::new(Kept(Mutex::new(Ok(answer))));
    let entities = Entities::new("users", Some(kept.clone()));
    (kept, entities)
}

async fn ask(entities: &Entities, id: &str, query: &str, headers: HeaderMap) -> Response {
    let request = Request::builder().uri(format!("/v1/entities/x?{query}")).body(Body::empty()).expect("a request");
    let (mut parts, _) = request.into_parts();
    let query = Query::from_request_parts(&mut parts, &()).await;
    answers::get(State(entities.clone()), Ok(Path(id.to_owned())), query, headers).await
}

async fn body(response: Response) -> Value {
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 16).await.expect("a body");
    serde_json::from_slice(&bytes).expect("JSON")
}

#[tokio::test(start_paused = true)]
async fn an_entity_is_told_with_the_time_for_which_that_counts() {
    let (kept, entities) = kept(answer(3, Side::New, false));
    let told = ask(&entities, "42", "", HeaderMap::new()).await;
    assert_eq!((told.status(), &told.headers()["etag"]), (StatusCode::OK, &"\"3\"".parse().expect("a header")));
    let wanted = json!({"pair":"users","entity":"42","side":"new","version":3,"fenced":false,"valid_for_ms":2000});
    assert_eq!(body(told).await, wanted);

    let known = HeaderMap::from_iter([("if-none-match".parse().expect("a name"), "\"3\"".parse().expect("a value"))]);
    assert_eq!(ask(&entities, "42", "", known).await.status(), StatusCode::NOT_MODIFIED);

    *kept.0.lock().expect("no panic") = Ok(answer(4, Side::New, true));
    let told = body(ask(&entities, "42", "after=3", HeaderMap::new()).await).await;
    assert_eq!((&told["fenced"], &told["valid_for_ms"]), (&json!(true), &json!(0)));

    *kept.0.lock().expect("no panic") = Err("the store is away".to_owned());
    let told = ask(&entities, "42", "", HeaderMap::new()).await;
    assert_eq!(told.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body(told).await["error"], "the store is away");
}

#[tokio::test(start_paused = true)]
async fn who_waits_is_told_of_another_version_and_of_the_end() {
    let (kept, entities) = kept(answer(3, Side::Old, true));
    let asked = tokio::time::Instant::now();
    assert_eq!(ask(&entities, "42", "after=3&wait=1s", HeaderMap::new()).await.status(), StatusCode::NOT_MODIFIED);
    assert!(asked.elapsed() >= Duration::from_secs(1));

    let later = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        *kept.0.lock().expect("no panic") = Ok(answer(4, Side::New, false));
    };
    let (told, ()) = tokio::join!(ask(&entities, "42", "after=3&wait=30s", HeaderMap::new()), later);
    assert_eq!(body(told).await["side"], "new");

    let stop = CancellationToken::new();
    let entities = entities.stopped_by(stop.clone());
    let waiting = ask(&entities, "42", "after=4&wait=30s", HeaderMap::new());
    let ends = async { stop.cancel() };
    assert_eq!(tokio::join!(waiting, ends).0.status(), StatusCode::NOT_MODIFIED);
}

#[tokio::test]
async fn what_makes_no_sense_is_told_together() {
    let (_, entities) = kept(answer(3, Side::Old, false));
    let told = ask(&entities, "", "wait=5&x=1", HeaderMap::new()).await;
    assert_eq!(told.status(), StatusCode::BAD_REQUEST);
    let text = body(told).await["error"].to_string();
    assert!(text.contains("no key") && text.contains("no duration") && text.contains("`x`"), "{text}");

    let none = Entities::new("users", None);
    let told = ask(&none, "42", "", HeaderMap::new()).await;
    assert_eq!(told.status(), StatusCode::NOT_FOUND);
    assert!(body(told).await["error"].as_str().is_some_and(|text| text.contains("[entity]")));
}
