//! Messages that a person gives up: they are taken out of the target's list of what is set aside, and nobody waits for
//! them any more.
//!
//! A discarded message has had no effect, and yet it is settled: what users of the target write from then on counts as
//! written in the knowledge of it, and so overrides it at the source. Changes made on the target before remain
//! concurrent with it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crossfade_message::{Outcome, Request, Status};
use crossfade_rules::trouble::Remedy;
use mysql_async::prelude::Queryable;

use crate::applier::Applier;
use crate::error::{ApplyError, with_causes};
use crate::lane::pauses;
use crate::progress::Waiting;
use crate::session;

impl Applier {
    /// Gives up those messages of the requests that are still set aside, and tries what waited behind them.
    pub(crate) async fn discard(&mut self, requests: &[Request]) -> Result<(), ApplyError> {
        let parked = self.shared.parking.lock().await.seqs();
        let asked: Vec<&Request> = requests.iter().filter(|request| parked.contains(&request.seq)).collect();
        let seqs: BTreeSet<u64> = asked.iter().map(|request| request.seq).collect();
        if seqs.is_empty() {
            return Ok(());
        }
        let groups = self.shared.parking.lock().await.groups_of(&seqs);
        // The store first: nothing leaves the target's list without a word.
        self.keep_discarded(&asked).await?;
        self.give_up(&seqs).await?;
        self.shared.store.clear_set_aside(&self.options.stream, &Vec::from_iter(seqs.iter().copied())).await?;
        (self.shared.probe)("discarded");
        for group in groups {
            let waiting: BTreeSet<u64> = group.difference(&seqs).copied().collect();
            self.retry_group(&waiting).await?;
        }
        Ok(())
    }

    async fn keep_discarded(&self, requests: &[&Request]) -> Result<(), ApplyError> {
        let (store, stream) = (&self.shared.store, &self.options.stream);
        let seqs = requests.iter().map(|request| request.seq).collect();
        let messages = store.read_some(stream, &seqs).await?;
        let outcome_of = |request: &&Request| {
            let place = messages.binary_search_by_key(&request.seq, |message| message.seq).ok()?;
            Some(Outcome::undisputed(
                request.seq,
                messages[place].change.layout.name.clone(),
                Status::Discarded,
                reason_of(request),
            ))
        };
        let outcomes: Vec<Outcome> = requests.iter().filter_map(outcome_of).collect();
        Ok(store.record_outcomes(stream, &outcomes).await?)
    }

    /// Takes messages out of the target's list, in a transaction of its own, which its checkpoint row tags.
    pub(crate) async fn give_up(&mut self, seqs: &BTreeSet<u64>) -> Result<(), ApplyError> {
        let mut backoff = pauses();
        // Said until it is done.
        let mut _trouble = None;
        loop {
            let error = match self.give_up_once(seqs).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if error.remedy() == Remedy::Stop || error.remedy() == Remedy::Park {
                return Err(error);
            }
            let error = with_causes(&error);
            tracing::warn!(error, "messages could not be given up; trying again");
            _trouble = Some(self.shared.progress.wait(Waiting::Retry(error)));
            tokio::time::sleep(backoff.next().unwrap_or(Duration::from_secs(5))).await;
        }
    }

    /// Whether an earlier attempt came through is told by the target's list, whose lock is waited for.
    async fn give_up_once(&mut self, seqs: &BTreeSet<u64>) -> Result<(), ApplyError> {
        let shared = self.shared.clone();
        let owner = &shared.owner;
        let conn = self.lanes[0].connection(&shared).await?;
        let given_up = async {
            conn.query_drop("BEGIN").await?;
            let mut parked = owner.parked(conn).await?;
            parked.retain(|seq| !seqs.contains(seq));
            owner.set_parked(conn, &parked).await?;
            Ok(conn.query_drop("COMMIT").await?)
        };
        if let Err(error) = session::answered(given_up).await {
            self.lanes[0].forget_connection();
            return Err(error);
        }
        let mut parking = shared.parking.lock().await;
        parking.leave(seqs.iter().copied(), Instant::now());
        shared.progress.set_aside(parking.counts());
        Ok(())
    }
}

/// As the message keeps it.
pub(crate) fn reason_of(request: &Request) -> String {
    format!("by {}: {}", request.by, request.reason.as_deref().unwrap_or("no reason was given"))
}
