//! What a pair tells over HTTP: whether it is ready, its numbers, its status, the [flag](Flags) that applications follow, and the side
//! of each [entity](Entities), as the store has them.
//!
//! - Nothing is ready that cannot be seen to be: a store that does not answer makes `/readyz` refuse, never agree.
//! - It changes nothing but who follows the flag. However often it is asked for the status, the store is asked once a second at most.
//!
//! *Absent:* SQL, and any opinion of its own on how a stream is: that is [`Health`](crossfade_message::Health)'s.

mod answers;
mod entity;
mod flag;
mod look;
mod metrics;
mod status;
mod view;

use std::future::IntoFuture;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use entity::{Entities, EntityDocument, EntityStore};
pub use flag::{FlagDocument, FlagStore, Flags, InstanceLine};
pub use status::{EndLine, FlagLine, RoundLine, StandbyLine, Status, StoreLine, StreamLine, VerifyLine};
pub use view::{Ask, View};

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("cannot listen on {address}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("serving has ended")]
    Serve(#[source] std::io::Error),
}

impl ServerError {
    /// What to do next.
    pub fn hint(&self) -> &'static str {
        match self {
            ServerError::Listen { .. } => "name a free address of this machine: `[http] listen`, or `--listen`",
            ServerError::Serve(_) => "start it again",
        }
    }
}

/// Takes the address, which nobody else can have then.
///
/// # Errors
///
/// [`ServerError::Listen`]
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { address, source })
}

/// Answers until `stop` is cancelled; answers under way are given to their end, and those that wait for a change at once.
///
/// # Errors
///
/// [`ServerError::Serve`]
pub async fn serve(
    listener: TcpListener,
    view: View,
    (flags, entities): (Flags, Entities),
    stop: CancellationToken,
) -> Result<(), ServerError> {
    let told = Told { view, flags: flags.stopped_by(stop.clone()), entities: entities.stopped_by(stop.clone()) };
    let serving = axum::serve(listener, router(told)).with_graceful_shutdown(stop.cancelled_owned());
    serving.into_future().await.map_err(ServerError::Serve)
}

/// What answers are given from.
#[derive(Clone)]
struct Told {
    view: View,
    flags: Flags,
    entities: Entities,
}

impl FromRef<Told> for View {
    fn from_ref(told: &Told) -> View {
        told.view.clone()
    }
}

impl FromRef<Told> for Flags {
    fn from_ref(told: &Told) -> Flags {
        told.flags.clone()
    }
}

impl FromRef<Told> for Entities {
    fn from_ref(told: &Told) -> Entities {
        told.entities.clone()
    }
}

fn router(told: Told) -> Router {
    Router::new()
        .route("/healthz", get(answers::healthz))
        .route("/readyz", get(answers::readyz))
        .route("/metrics", get(answers::metrics))
        .route("/v1/status", get(answers::status))
        .route("/v1/flag", get(flag::answers::get))
        .route("/v1/flag/instances", get(flag::answers::instances))
        .route("/v1/flag/instances/{instance}", put(flag::answers::put_instance).delete(flag::answers::delete_instance))
        .route("/v1/entities/{id}", get(entity::answers::get))
        .with_state(told)
}
