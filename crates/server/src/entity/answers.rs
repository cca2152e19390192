//! What is answered below `/v1/entities`.

use axum::Json;
use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use crossfade_model::EntityKey;

use super::Entities;
use crate::flag::asked;

/// Who has authority over an entity, at once or as soon as it is another version than `after`; 304 where the asker has it.
pub async fn get(
    State(entities): State<Entities>,
    id: Result<Path<String>, PathRejection>,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
    headers: HeaderMap,
) -> Response {
    let Some(store) = entities.store.clone() else {
        let reason = "nothing moves one by one here: the configuration has no `[entity]`";
        return refused(StatusCode::NOT_FOUND, reason);
    };
    let mut problems = Vec::new();
    let key = id.ok().and_then(|Path(id)| EntityKey::parse(&id));
    if key.is_none() {
        problems.push("that is no key of an entity: it has 1 to 512 bytes".to_owned());
    }
    let poll = match query {
        Ok(Query(query)) => asked::poll(&query).map_err(|found| problems.extend(found)).ok(),
        Err(error) => {
            problems.push(error.body_text());
            None
        }
    };
    let (Some(key), Some(poll)) = (key, poll) else {
        return refused(StatusCode::BAD_REQUEST, &problems.join("; "));
    };
    match entities.other_than(&*store, &key, poll.after, poll.wait).await {
        Ok(answer) => {
            let tag = format!("\"{}\"", answer.version);
            let known = poll.after == Some(answer.version) || asked::has_version(&headers, &tag);
            let tag = [(header::ETAG, tag), (header::CACHE_CONTROL, "no-cache".to_owned())];
            match known {
                true => (StatusCode::NOT_MODIFIED, tag).into_response(),
                false => (tag, Json(entities.document(&key, answer))).into_response(),
            }
        }
        Err(reason) => refused(StatusCode::SERVICE_UNAVAILABLE, &reason),
    }
}

fn refused(code: StatusCode, reason: &str) -> Response {
    (code, Json(serde_json::json!({ "error": reason }))).into_response()
}
