//! One function for each path below `/v1/flag`.

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use crossfade_message::Flag;
use serde::Serialize;
use tokio::time::Instant;

use super::Flags;
use super::asked;
use super::document::{FlagDocument, InstanceLine};
use crate::look::ago;
use crate::view::FRESH;

#[derive(Serialize)]
struct Registered {
    #[serde(flatten)]
    flag: FlagDocument,
    /// From now on, if it is not heard again.
    expires_in_ms: u64,
}

/// The flag, at once or as soon as it is another one than `after`; 304 where the asker has it.
pub async fn get(
    State(flags): State<Flags>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let asked = match query {
        Ok(Query(query)) => asked::poll(&query),
        Err(error) => Err(vec![error.body_text()]),
    };
    let poll = match asked {
        Ok(poll) => poll,
        Err(problems) => return refused(StatusCode::BAD_REQUEST, &problems.join("; ")),
    };
    match flags.other_than(poll.after, poll.wait).await {
        Ok(flag) => {
            let tag = format!("\"{}\"", flag.version);
            let known = poll.after == Some(flag.version) || asked::has_version(&headers, &tag);
            let tag = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
            match known {
                true => (StatusCode::NOT_MODIFIED, tag).into_response(),
                false => (tag, Json(FlagDocument::of(&flags.pair, flag))).into_response(),
            }
        }
        Err(reason) => refused(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// Registers an instance, or takes what it acknowledges; both is one.
pub async fn put_instance(
    State(flags): State<Flags>,
    instance: Result<Path<String>, PathRejection>,
    body: Bytes,
) -> Response {
    let instance = instance.map_or_else(|_| String::new(), |Path(instance)| instance);
    let asked = match asked::acknowledged(&instance, &body) {
        Ok(asked) => asked,
        Err(problems) => return refused(StatusCode::BAD_REQUEST, &problems.join("; ")),
    };
    // Who acknowledges what is not there yet would be taken to have acknowledged what comes. A flag only rises, so one of a
    // moment ago tells.
    let mut seen = flags.since(ago(FRESH)).await.1;
    if !seen.as_ref().is_ok_and(|flag| asked.version <= flag.version) {
        seen = flags.since(Instant::now()).await.1;
    }
    match seen {
        Ok(flag) if asked.version <= flag.version => {}
        Ok(Flag { version, .. }) => {
            let reason = format!("version {} of the flag is not there: it has version {version}", asked.version);
            return refused(StatusCode::CONFLICT, &reason);
        }
        Err(reason) => return refused(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
    let begun = Instant::now();
    if let Err(reason) = flags.acknowledge(&instance, asked.version, asked.ttl).await {
        return refused(StatusCode::SERVICE_UNAVAILABLE, &reason);
    }
    // Not a look from before the store knew of the instance: a fence that has come since did not wait for it.
    match flags.since(Instant::now()).await.1 {
        Ok(flag) => {
            let left = asked.ttl.saturating_sub(begun.elapsed());
            let expires_in_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
            Json(Registered { flag: FlagDocument::of(&flags.pair, flag), expires_in_ms }).into_response()
        }
        Err(reason) => refused(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// An instance has ended, and writes no more.
pub async fn delete_instance(State(flags): State<Flags>, instance: Result<Path<String>, PathRejection>) -> Response {
    let instance = instance.map_or_else(|_| String::new(), |Path(instance)| instance);
    if let Err(problem) = asked::instance(&instance) {
        return refused(StatusCode::BAD_REQUEST, &problem);
    }
    match flags.forget(&instance).await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(reason) => refused(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

/// Those that are waited for.
pub async fn instances(State(flags): State<Flags>) -> Response {
    match flags.instances_since(Instant::now()).await {
        Ok(instances) => Json(instances.iter().map(InstanceLine::from).collect::<Vec<_>>()).into_response(),
        Err(reason) => refused(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn refused(code: StatusCode, reason: &str) -> Response {
    (code, Json(serde_json::json!({ "error": reason }))).into_response()
}
