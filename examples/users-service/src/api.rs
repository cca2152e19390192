//! The paths.

use axum::extract::rejection::JsonRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use crate::failure::Failure;
use crate::users::{Change, User, Users, Written};

pub fn router(users: Users) -> Router {
    Router::new()
        .route("/users", post(add))
        .route("/users/{id}", get(read).put(replace))
        .route("/healthz", get(healthz))
        .with_state(users)
}

async fn add(State(users): State<Users>, user: Result<Json<User>, JsonRejection>) -> Result<Response, Failure> {
    let written = users.write(Change::Add(given(user)?)).await?;
    Ok((StatusCode::CREATED, Json(written)).into_response())
}

async fn replace(
    State(users): State<Users>,
    Path(id): Path<u64>,
    user: Result<Json<User>, JsonRejection>,
) -> Result<Json<Written>, Failure> {
    Ok(Json(users.write(Change::Replace(id, given(user)?)).await?))
}

async fn read(State(users): State<Users>, Path(id): Path<u64>) -> Result<Response, Failure> {
    Ok(match users.read(id).await? {
        Some(user) => Json(user).into_response(),
        None => (StatusCode::NOT_FOUND, Json(serde_json::json!({ "error": "there is no such user" }))).into_response(),
    })
}

async fn healthz(State(users): State<Users>) -> Response {
    let instance = users.flag().instance();
    match users.flag().flag() {
        Ok(flag) => {
            let told = serde_json::json!({
                "instance": instance, "flag_version": flag.version, "phase": flag.phase.as_str(), "fenced": flag.fenced,
            });
            Json(told).into_response()
        }
        Err(error) => {
            let told = serde_json::json!({ "instance": instance, "error": error.to_string() });
            (StatusCode::SERVICE_UNAVAILABLE, Json(told)).into_response()
        }
    }
}

fn given(user: Result<Json<User>, JsonRejection>) -> Result<User, Failure> {
    let refused = |error: JsonRejection| Failure::Refused(StatusCode::BAD_REQUEST, error.body_text());
    user.map(|Json(user)| user).map_err(refused)
}
