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
use std::sync::Arc;

use axum::Router;
use axum::extract::FromRef;
use axum::routing::{get, put};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use entity::{Entities, EntityDocument, EntityStore};
pub use flag::{FlagDocument, FlagStore, Flags, InstanceLine};
pub use status::{EndLine, FlagLine, GroupLine, RoundLine, StandbyLine, Status, StoreLine, StreamLine, VerifyLine};
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

/// Flags, by the group of tables whose they are; `None` for all tables that are in none.
pub type FlagsByGroup = Vec<(Option<String>, Flags)>;

/// Answers until `stop` is cancelled; answers under way are given to their end, and those that wait for a change at once. The flag
/// of a group is below `/groups/<group>`.
///
/// # Errors
///
/// [`ServerError::Serve`]
pub async fn serve(
    listener: TcpListener,
    view: View,
    (flags, entities): (FlagsByGroup, Entities),
    stop: CancellationToken,
) -> Result<(), ServerError> {
    let stopped = |(group, flags): (Option<String>, Flags)| (group, flags.stopped_by(stop.clone()));
    let flags: Arc<FlagsByGroup> = Arc::new(flags.into_iter().map(stopped).collect());
    let entities = entities.stopped_by(stop.clone());
    let router = router(Told { view, flags, entities });
    let serving = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    serving.into_future().await.map_err(ServerError::Serve)
}

/// What answers are given from.
#[derive(Clone)]
struct Told {
    view: View,
    flags: Arc<FlagsByGroup>,
    entities: Entities,
}

impl FromRef<Told> for View {
    fn from_ref(told: &Told) -> View {
        told.view.clone()
    }
}

impl FromRef<Told> for Arc<FlagsByGroup> {
    fn from_ref(told: &Told) -> Arc<FlagsByGroup> {
        told.flags.clone()
    }
}

impl FromRef<Told> for Entities {
    fn from_ref(told: &Told) -> Entities {
        told.entities.clone()
    }
}

fn router(told: Told) -> Router {
    let flags = told.flags.clone();
    let router = Router::new()
        .route("/healthz", get(answers::healthz))
        .route("/readyz", get(answers::readyz))
        .route("/metrics", get(answers::metrics))
        .route("/v1/status", get(answers::status))
        .route("/v1/entities/{id}", get(entity::answers::get))
        .with_state(told);
    flags.iter().fold(router, |router, (group, flags)| match group {
        None => router.merge(of_flag(flags)),
        Some(group) => router.nest(&format!("/groups/{group}"), of_flag(flags)),
    })
}

fn of_flag(flags: &Flags) -> Router {
    Router::new()
        .route("/v1/flag", get(flag::answers::get))
        .route("/v1/flag/instances", get(flag::answers::instances))
        .route("/v1/flag/instances/{instance}", put(flag::answers::put_instance).delete(flag::answers::delete_instance))
        .with_state(flags.clone())
}
