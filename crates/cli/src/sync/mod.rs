//! `crossfade sync`: one direction, from its source's binlog to its target.
//!
//! Order of start: lease, stream, checkpoints, reader. Order of shutdown: reader and capture, applier, settling, lease.

mod again;
mod backfill;
mod backlog;
mod breaker;
mod canary;
mod capture;
mod clocks;
mod comparing;
pub mod failpoint;
mod flag;
mod follow;
mod gate;
mod health;
mod keeping;
mod lease;
mod memory;
mod outset;
mod purge;
mod queue;
mod report;
mod restored;
mod serve;
mod source_end;
pub mod throttle;
mod wishes;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use crossfade_applier::{
    Alarm, Applier, ApplierOptions, BatchBounds, BreakerOptions, CircuitLimits, Counters, Entities, Feed, ProgressView,
    Uncopied, Wishes,
};
use crossfade_backfill::Windows;
use crossfade_binlog::ReaderOptions;
use crossfade_catalog::Servers;
use crossfade_config::Settings;
use crossfade_message::{Mark, Store, StreamState, Wish};
use crossfade_model::{Direction, Position, Side, StreamId};
use crossfade_throttle::Throttle;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::command::{ended, open_store, verify};
use crate::failure::{Failure, Kind, with_causes};
use crate::meeting::Source;
use crate::pair::{Pair, stream_of};
use crate::store_home;
use canary::Canary;
use capture::{Capture, CaptureView};
use comparing::Comparing;
use follow::Followed;
use gate::Gate;
use lease::Lease;
pub use lease::{holder, is_dead, is_held, is_silent, runner, runners};
use memory::Shares;
use outset::{Begun, Outset};
pub use report::last_counters;
use report::{Observed, Reporter};
pub use serve::serve;

/// A process that was asked to stop has this long before it is ended anyway.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(10);

/// The heartbeat row by which a replica's position at the start is found.
const UNTIL_WRITER: &str = "until-caught-up";

/// Runs a direction until `stop`, or until everything is applied that the source has now. Servers that are away at the start are
/// waited for, but not where it is to end by itself.
pub async fn run(
    settings: Settings,
    direction: Direction,
    until_caught_up: bool,
    from_mark: Option<String>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let probe = failpoint::from_environment()?;
    let holder = lease::holder();
    let outset = Outset { direction, holder: &holder, waits: !until_caught_up, stop: &stop };
    let Some(settings) = outset.find_store(settings).await? else { return Ok(()) };
    let store = open_store(&settings).with_probe(probe.clone());
    let running = async {
        let Some(pair) = outset.pair(&settings, &store).await? else { return Ok(()) };
        let mark = match &from_mark {
            Some(name) => Some(again::find(&store, direction, name).await?),
            None => None,
        };
        run_with(&pair, &store, &outset, mark.as_ref(), probe).await
    };
    store_home::followed(&settings, &store, running).await?;
    if until_caught_up && !stop.is_cancelled() { all_have_crossed(&store, direction).await } else { Ok(()) }
}

/// What was set aside has not: whoever has waited for the end of the run is told.
async fn all_have_crossed(store: &Store, direction: Direction) -> anyhow::Result<()> {
    let stream = stream_of(direction);
    let statuses = store.stream_statuses().await?;
    let Some(status) = statuses.iter().find(|status| status.stream == stream.as_str()) else { return Ok(()) };
    let (refused, held) = (status.open_failures, status.held);
    if refused + held == 0 {
        return Ok(());
    }
    let message = format!(
        "{stream} has caught up, but not all has crossed: {refused} refused by the {} side, {held} held until {} has read what \
         users wrote there",
        direction.target(),
        direction.opposite()
    );
    let hint = format!(
        "`crossfade messages list --status failed` (or `held`) shows them; what is held goes on when `crossfade sync {}` runs \
         beside `crossfade sync {direction}`",
        direction.opposite()
    );
    Err(Failure::new(Kind::Finding, message, hint).into())
}

async fn run_with(
    pair: &Pair,
    store: &Store,
    outset: &Outset<'_>,
    mark: Option<&Mark>,
    probe: failpoint::Probe,
) -> anyhow::Result<()> {
    let direction = outset.direction;
    let lease = match Lease::acquire(store, outset, pair.rules_hash).await {
        Ok(Some(lease)) => lease,
        Ok(None) => return Ok(()),
        Err(error) => {
            outset::tell_why(store, direction, &error).await;
            return Err(error);
        }
    };
    // From the first moment on: whoever waits for a server before it runs keeps its lease meanwhile.
    let mut over = None;
    let ran = tokio::select! {
        lost = lease.clone().renew(store.clone()) => lost,
        ran = outset.until_begun(store, lease.epoch(), async |begun| {
            // It may have ended while this process stood by, or waited: asked before each attempt.
            over = store.end_word().await?;
            if over.is_some() {
                return Ok(());
            }
            hold_lease_and_run(pair, store, (outset, mark), &lease, probe.clone(), begun).await
        }) => ran,
    };
    match &ran {
        Err(error) => report::failed(store, &stream_of(direction), lease.epoch(), error).await,
        Ok(()) if over.is_some() => report::ended(store, &stream_of(direction), lease.epoch()).await,
        Ok(()) => {}
    }
    let released = lease.release(store).await;
    ran.and(released)?;
    over.map_or(Ok(()), |word| Err(ended(&word).into()))
}

async fn hold_lease_and_run(
    pair: &Pair,
    store: &Store,
    (outset, mark): (&Outset<'_>, Option<&Mark>),
    lease: &Lease,
    probe: failpoint::Probe,
    begun: &Begun,
) -> anyhow::Result<()> {
    let Outset { direction, stop, .. } = *outset;
    let until_caught_up = !outset.waits;
    let settings = &pair.settings;
    let stream = stream_of(direction);
    report::starting(store, &stream, lease.epoch()).await?;
    let state = adopt(store, &stream, lease, stop).await?;
    let state = restored::look(settings, store, state, stop).await?;
    report::starting(store, &stream, lease.epoch()).await?;
    if store.wish(direction).await?.is_none() {
        store.set_wish(direction, Wish::RUN).await?;
    }
    let (source, target) = (at_side(settings, direction.source()), at_side(settings, direction.target()));
    source.servers.must_have(&state.position.position);
    let until = match until_caught_up {
        true => Some(source.position(UNTIL_WRITER).await?),
        false => None,
    };
    // Everything below ends with this; `stop` alone means that a person asked.
    let running = stop.child_token();
    let _ends_with_this = running.clone().drop_guard();
    let wishes = wishes::Watched::start(store.clone(), direction, running.clone()).await?;
    let (throttle, _following_limits) = throttle::watch(settings, store, &running).await;
    let shares = Shares::of(settings);
    let feed = Arc::new(Feed::new(state.last_seq, shares.feed_bytes));
    let counters = Arc::new(Counters::default());
    // An idle source may have nothing to read after the saved position.
    let saved = Some(state.position.position.clone());
    let (capture_view, captured) =
        watch::channel(CaptureView { position: saved, last_seq: state.last_seq, ..CaptureView::default() });

    let (switch, switching) = watch::channel(None);
    let following = flag::Following::new(settings.clone(), store, direction, outset.holder);

    let (alarms, alarmed) = mpsc::channel(1);
    let given = Given {
        epoch: lease.epoch().0,
        target: target.servers.clone(),
        shares,
        feed: feed.clone(),
        wishes: wishes.for_applier(),
        counters: counters.clone(),
        alarms,
        // A run that is to end by itself has nobody who waits for it to go on.
        rests: !until_caught_up,
        uncopied: Uncopied::default(),
        throttle: throttle.clone(),
        probe: probe.clone(),
        stop: running.clone(),
    };
    let uncopied = given.uncopied.clone();
    let windows = Arc::new(Windows::new(pair.mappings(direction).into()));
    let (applier, applied, hold_worker) = Applier::open(applier_options(pair, store, direction, given)).await?;
    let mut capture = Capture {
        gate: Gate::new(settings, &source, store, &state, applied.clone()).await?,
        clocks: clocks::remembered(store, pair.mappings(direction), &state, shares.clock_rows).await?,
        store: store.clone(),
        state,
        feed,
        windows: windows.clone(),
        shares,
        waits: !until_caught_up,
        view: capture_view,
        switching: switching.clone(),
        probe: probe.clone(),
        stop: running.clone(),
        changes_wait_until: Instant::now(),
    };
    let mut reader = reader_options(pair, direction, &source.servers, shares);
    reader.echo_watch = Some(backfill::echo_watch(&windows));
    if let Some(mark) = mark {
        again::read_again(&mut capture, mark, reader.clone()).await?;
    }
    tracing::info!(%stream, epoch = lease.epoch().0, from = %capture.state.position.position, "running");

    let before = report::last_counters(store, &stream).await?;
    let sender = canary::Sender { settings: settings.clone(), target: target.clone(), epoch: lease.epoch().0 };
    let (canary, proof) = Canary::new(sender, store, &stream, wishes.clone(), before.tag, switching).await?;
    let (keeping, keeps) = watch::channel(None);
    let observed = Observed {
        epoch: lease.epoch().0,
        counters,
        captured: captured.clone(),
        applied: applied.clone(),
        wishes: wishes.clone(),
        proof: proof.clone(),
        keeps,
    };
    let reporter = Reporter::new(source.clone(), store, &stream, observed).await?;
    begun.note();
    let mut tasks: JoinSet<anyhow::Result<()>> = JoinSet::new();
    tasks.spawn(capture_while_wished(capture, reader, wishes.clone(), running.clone()));
    // A run that is to end by itself copies nothing: nobody knows when that would be.
    if direction == Direction::Forward && !until_caught_up {
        let parts = backfill::Parts {
            epoch: lease.epoch().0,
            source: source.servers.clone(),
            target: target.servers.clone(),
            windows,
            uncopied,
            applied: applied.clone(),
            wishes: wishes.for_applier(),
            throttle: throttle.clone(),
            probe: probe.clone(),
        };
        let comparing = Comparing {
            settings: settings.clone(),
            store: store.clone(),
            epoch: lease.epoch().0,
            tables: verify::tables(pair, &[])?,
            throttle: throttle.clone(),
            probe,
        };
        tasks.spawn(comparing.run(running.clone()));
        let copying = backfill::of(pair, store, parts).run(&applier, running.clone());
        tasks.spawn(async move {
            copying.await;
            Ok(())
        });
        tasks.spawn(backfill::mark_ends(settings.clone(), store.clone(), running.clone()));
    }
    tasks.spawn(apply_when_harmless(applier, canary::until_harmless(proof, wishes.for_applier()), running.clone()));
    tasks.spawn(throttle::tell(throttle, store.clone(), direction, running.clone()));
    tasks.spawn(canary.run(running.clone()));
    tasks.spawn(following.run(switch, running.clone()));
    tasks.spawn(canary::look_for(store.clone(), stream.clone(), captured.clone(), running.clone()));
    tasks.spawn(async move { hold_worker.await.map_err(anyhow::Error::from) });
    tasks.spawn(reporter.run(running.clone()));
    tasks.spawn(breaker::answer(alarmed, store.clone(), wishes.clone(), running.clone()));
    tasks.spawn(keeping::watch_over(source.clone(), captured.clone(), keeping, running.clone()));
    for (at, captured) in [(source, Some(captured.clone())), (target, None)] {
        let followed =
            Followed { side: at.side, servers: at.servers, stream: stream.clone(), store: store.clone(), captured };
        tasks.spawn(followed.run(running.clone()));
    }
    if let Some(until) = until {
        tasks.spawn(end_when_caught_up(until, captured, applied, running.clone()));
    }
    wait_for_all(tasks, running).await
}

/// What an applier is given for one run, beside what is configured.
struct Given {
    epoch: u64,
    target: Servers,
    shares: Shares,
    feed: Arc<Feed>,
    wishes: watch::Receiver<Wishes>,
    counters: Arc<Counters>,
    alarms: mpsc::Sender<Alarm>,
    /// Where the target can take nothing, applying rests; else it ends with the error.
    rests: bool,
    uncopied: Uncopied,
    throttle: Throttle,
    probe: failpoint::Probe,
    stop: CancellationToken,
}

fn applier_options(pair: &Pair, store: &Store, direction: Direction, given: Given) -> ApplierOptions {
    let settings = &pair.settings;
    ApplierOptions {
        pair: settings.pair.clone(),
        stream: stream_of(direction),
        epoch: given.epoch,
        target: given.target,
        target_flavor: pair.side(direction.target()).facts.flavor(),
        store: store.clone(),
        mappings: pair.mappings(direction).into(),
        target_shapes: pair.target_shapes(direction),
        left_out: settings.left_out(direction.source()).into(),
        opposite_mappings: pair.mappings(direction.opposite()).into(),
        prefer: settings.conflict.prefer,
        family: settings.conflict.fk_conflict,
        entities: Entities {
            name: settings.entity.as_ref().map_or("", |entity| &entity.name).into(),
            tables: pair.entities(direction).clone(),
        },
        uncopied: given.uncopied,
        throttle: given.throttle,
        lanes: settings.apply.lanes,
        bounds: BatchBounds { rows: settings.apply.batch_rows as usize, bytes: given.shares.batch_bytes },
        index_bytes: given.shares.index_bytes,
        feed: given.feed,
        wishes: given.wishes,
        counters: given.counters,
        breaker: BreakerOptions {
            max_crossings: settings.conflict.max_crossings,
            window: settings.conflict.crossing_window,
            alarms: given.alarms,
        },
        circuit: CircuitLimits {
            most_parked: settings.apply.max_parked as usize,
            most_refused_ppm: settings.apply.max_parked_ppm,
        },
        rests: given.rests,
        probe: given.probe,
        stop: given.stop,
    }
}

async fn apply_when_harmless(
    applier: Applier,
    harmless: impl Future<Output = ()>,
    running: CancellationToken,
) -> anyhow::Result<()> {
    tokio::select! {
        () = running.cancelled() => return Ok(()),
        () = harmless => {}
    }
    Ok(applier.run().await?)
}

/// A former holder may still have a lock on the stream's row, until the server drops its session.
async fn adopt(
    store: &Store,
    stream: &StreamId,
    lease: &Lease,
    stop: &CancellationToken,
) -> anyhow::Result<StreamState> {
    loop {
        match store.adopt_stream(stream, lease.epoch()).await {
            Err(error) if error.is_transient() && !stop.is_cancelled() => {
                let error = with_causes(&error.into());
                tracing::warn!(error, "the stream could not be taken over; trying again");
                report::retrying(store, stream, lease.epoch(), error).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            other => return Ok(other?),
        }
    }
}

/// The first task that ends, for whatever reason, ends all; the first error is the one that counts.
async fn wait_for_all(mut tasks: JoinSet<anyhow::Result<()>>, running: CancellationToken) -> anyhow::Result<()> {
    let mut result = Ok(());
    let end_all = async {
        while let Some(joined) = tasks.join_next().await {
            let ended = joined.context("a task panicked").and_then(|ended| ended);
            running.cancel();
            match (&result, ended) {
                (Ok(()), ended) => result = ended,
                (Err(_), Ok(())) => {}
                // Most often for the same reason; where not, it is told here or nowhere.
                (Err(_), Err(error)) => tracing::info!(error = with_causes(&error), "this has ended as well"),
            }
        }
    };
    let overdue = async {
        running.cancelled().await;
        tokio::time::sleep(SHUTDOWN_LIMIT).await;
    };
    tokio::select! {
        () = end_all => {}
        () = overdue => tracing::warn!("some work did not end in time and is cut off; it will be done again"),
    }
    result
}

/// Captures as long as the direction is wished to; reading starts anew with each wish.
async fn capture_while_wished(
    mut capture: Capture,
    reader: ReaderOptions,
    wishes: wishes::Watched,
    running: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        if !wishes.wait_for_capture(true, &running).await {
            return Ok(());
        }
        capture.stop = running.child_token();
        let until_unwished = capture.stop.clone();
        let watched = wishes.clone();
        let outer = running.clone();
        let watcher = AbortOnDropHandle::new(tokio::spawn(async move {
            if watched.wait_for_capture(false, &outer).await {
                until_unwished.cancel();
            }
        }));
        let ended = capture.run(reader.clone()).await;
        drop(watcher);
        ended?;
        if running.is_cancelled() {
            return Ok(());
        }
    }
}

async fn end_when_caught_up(
    until: Position,
    mut captured: watch::Receiver<CaptureView>,
    mut applied: watch::Receiver<ProgressView>,
    running: CancellationToken,
) -> anyhow::Result<()> {
    let is_read = |view: &CaptureView| {
        view.position.as_ref().is_some_and(|position| crossfade_binlog::is_reached(position, &until))
    };
    let caught_up = async {
        let last_seq = captured.wait_for(is_read).await?.last_seq;
        applied.wait_for(|view| view.applied_seq >= last_seq).await?;
        anyhow::Ok(())
    };
    tokio::select! {
        () = running.cancelled() => Ok(()),
        reached = caught_up => {
            // A channel that is closed means that its task has ended, and with it everything.
            if reached.is_ok() {
                tracing::info!("caught up with the position of the start");
            }
            Ok(())
        }
    }
}

fn at_side(settings: &Settings, side: Side) -> Source {
    Source::new(settings, side, Servers::new(settings.side(side).urls()))
}

fn reader_options(pair: &Pair, direction: Direction, servers: &Servers, shares: Shares) -> ReaderOptions {
    let settings = &pair.settings;
    let side = settings.side(direction.source());
    // Start and seen are set by the capture from what the store says.
    let nowhere = Position::File { server: String::new(), file: String::new(), offset: 0 };
    let (url, tables) = (side.binlog_url().clone(), pair.synced_tables(direction));
    let mut options = ReaderOptions::new(url, settings.pair.clone(), direction, tables, nowhere);
    options.fail_over = side.binlog_url.is_none().then(|| servers.clone());
    (options.part_bytes, options.prepared_bytes) = (shares.part_bytes, shares.prepared_bytes);
    options
}
