//! Carrying out what people ask for messages that are set aside, while no process runs the direction.

use std::sync::Arc;

use crossfade_applier::{Applier, Counters, Feed, Uncopied};
use crossfade_message::Store;
use crossfade_model::Direction;
use crossfade_throttle::Throttle;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::lease::Lease;
use super::memory::Shares;
use super::{Given, adopt, applier_options, at_side, failpoint, wait_for_all, wishes};
use crate::failure::{Failure, Kind};
use crate::pair::{Pair, stream_of};

/// Takes the direction's lease if nobody holds it, carries out all requests that are open, and gives it up again. The
/// epoch fences it as it does a process. Where somebody holds the lease, he carries them out. Ends early when asked to
/// stop; what was begun is then finished by the next one.
pub async fn serve(pair: &Pair, store: &Store, direction: Direction, stop: &CancellationToken) -> anyhow::Result<()> {
    let probe = failpoint::from_environment()?;
    let store = &store.clone().with_probe(probe.clone());
    let Some(lease) = Lease::acquire_if_free(store, direction, pair.rules_hash).await? else {
        return Ok(());
    };
    let served = serve_under(pair, store, direction, &lease, probe, stop).await;
    let released = lease.release(store).await;
    served.and(released)
}

async fn serve_under(
    pair: &Pair,
    store: &Store,
    direction: Direction,
    lease: &Lease,
    probe: failpoint::Probe,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let stream = stream_of(direction);
    refuse_unrecognised(store, direction).await?;
    let state = adopt(store, &stream, lease, stop).await?;
    let running = stop.child_token();
    let _ends_with_this = running.clone().drop_guard();
    let wishes = wishes::Watched::start(store.clone(), direction, running.clone()).await?;
    // Rows that go round are for the process to find: here nothing is applied but what was asked for.
    let (alarms, _alarmed) = mpsc::channel(1);
    let shares = Shares::of(&pair.settings);
    let given = Given {
        epoch: lease.epoch().0,
        target: at_side(&pair.settings, direction.target()).servers,
        shares,
        feed: Arc::new(Feed::new(state.last_seq, shares.feed_bytes)),
        wishes: wishes.for_applier(),
        counters: Arc::new(Counters::default()),
        alarms,
        rests: false,
        uncopied: Uncopied::default(),
        // A person waits for what it does.
        throttle: Throttle::open(),
        probe,
        stop: running.clone(),
    };
    let (applier, _applied, hold_worker) = Applier::open(applier_options(pair, store, direction, given)).await?;
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    tasks.spawn(async move { hold_worker.await.map_err(anyhow::Error::from) });
    let renewing = lease.clone().renew(store.clone());
    let renewed = running.clone();
    tasks.spawn(async move { renewed.run_until_cancelled(renewing).await.unwrap_or(Ok(())) });
    tasks.spawn(async move { applier.serve().await.map_err(anyhow::Error::from) });
    wait_for_all(tasks, running).await
}

/// What a process last found to come back as users' changes must not be written by anybody.
async fn refuse_unrecognised(store: &Store, direction: Direction) -> anyhow::Result<()> {
    let is_lost = store.canary(&stream_of(direction)).await?.is_some_and(|canary| canary.lost.is_some());
    let is_awaited = store.wish(direction.opposite()).await?.is_some_and(|wish| wish.declared);
    if !(is_lost && is_awaited) {
        return Ok(());
    }
    let message = format!("what {direction} wrote was not recognised on the {} side", direction.target());
    let hint = format!("run `crossfade sync {direction}`: it goes on as soon as what it writes is recognised again");
    Err(Failure::new(Kind::Finding, message, hint).into())
}
