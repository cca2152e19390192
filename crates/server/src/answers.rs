//! One function for each path.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use crossfade_message::Health;
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

use crate::metrics;
use crate::view::View;
use crate::{FlagsByGroup, Status, StreamLine};

/// What Prometheus asks for, and OpenMetrics calls it.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Deserialize)]
pub struct ReadyQuery {
    /// Only this direction counts.
    direction: Option<String>,
}

#[derive(Debug, Serialize)]
struct Readiness {
    ready: bool,
    /// Why nothing is known of the streams.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    streams: Vec<StreamReadiness>,
}

#[derive(Debug, Serialize)]
struct StreamReadiness {
    stream: String,
    ready: bool,
    state: String,
    reason: Option<String>,
    since: Option<String>,
}

/// This process serves. It says nothing of the pair.
pub async fn healthz() -> &'static str {
    "ok\n"
}

/// 200 where every stream runs that is meant to, 503 otherwise. What a person has declared off is not meant to.
pub async fn readyz(State(view): State<View>, Query(query): Query<ReadyQuery>) -> Response {
    let readiness = match view.look().await {
        Ok(status) => readiness(&status, query.direction.as_deref()),
        Err(reason) => Readiness { ready: false, reason: Some(reason.to_string()), streams: Vec::new() },
    };
    let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (code, Json(readiness)).into_response()
}

fn readiness(status: &Status, direction: Option<&str>) -> Readiness {
    let is_asked = |line: &&StreamLine| {
        direction.is_none_or(|direction| line.stream.split('/').next().is_some_and(|of| of == direction))
    };
    let asked: Vec<&StreamLine> = status.streams.iter().filter(is_asked).collect();
    let meant: Vec<&&StreamLine> = asked.iter().filter(|line| !matches!(line.health(), Health::Off { .. })).collect();
    let reason = match (asked.is_empty(), meant.is_empty(), direction) {
        (true, _, None) => Some("nothing is known of this pair yet: run `crossfade init`".to_owned()),
        (true, _, Some(direction)) => Some(format!("there is no direction `{direction}`: forward, reverse")),
        (false, true, _) => Some("all that is asked for is off".to_owned()),
        (false, false, _) => None,
    };
    let ready = !meant.is_empty() && meant.iter().all(|line| line.health().is_green());
    let streams = asked.into_iter().map(|line| StreamReadiness {
        stream: line.stream.clone(),
        ready: line.health().is_green(),
        state: line.state.clone(),
        reason: line.reason.clone(),
        since: line.since.clone(),
    });
    Readiness { ready, reason, streams: streams.collect() }
}

pub async fn metrics(State(view): State<View>, State(flags): State<Arc<FlagsByGroup>>) -> Response {
    let glances = flags.iter().map(|(group, flags)| async move {
        let (flag, instances) = flags.glance().await?;
        Some((group.clone(), flag, instances))
    });
    let followed = join_all(glances).await.into_iter().flatten().collect();
    match metrics::text(view.look().await.ok(), followed) {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

/// As `crossfade status --json`.
pub async fn status(State(view): State<View>) -> Response {
    match view.look().await {
        Ok(status) => Json(&*status).into_response(),
        Err(reason) => {
            let error = serde_json::json!({ "error": &*reason });
            (StatusCode::SERVICE_UNAVAILABLE, Json(error)).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
