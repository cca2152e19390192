//! What people ask for messages that are set aside, carried out between batches by the process that holds the lease.
//!
//! A request that was begun is carried out whatever dies: the next holder finds it open. It is looked at before anything
//! else is tried again, so a message that is to be given up is not applied meanwhile.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crossfade_message::{Request, RequestEnd, RequestKind, Status};
use crossfade_model::MessageId;

use crate::applier::Applier;
use crate::discard::reason_of;
use crate::error::ApplyError;

/// How often the store is asked for requests.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// So many are carried out before the next batch has its turn.
const REQUESTS_AT_A_TIME: u32 = 200;

impl Applier {
    /// Carries out all requests of the stream, and nothing else: for a tool that holds the lease while no process does.
    /// Ends early when stopped.
    pub async fn serve(mut self) -> Result<(), ApplyError> {
        let stop = self.options.stop.clone();
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            served = self.serve_all() => served?,
        }
        self.settle(true).await
    }

    async fn serve_all(&mut self) -> Result<(), ApplyError> {
        self.check_against_stream().await?;
        self.take_over_parking().await?;
        let looks = self.options.wishes.borrow().opposite_declared;
        self.shared.progress.looks_for_concurrent(looks);
        while self.serve_requests().await? {}
        Ok(())
    }

    /// Looks for requests if it is time to. `false`: the store is away, and what it asks for is not known.
    pub(crate) async fn serve_in_time(&mut self) -> Result<bool, ApplyError> {
        if self.requests_at.elapsed() < LOOK_EVERY {
            return Ok(true);
        }
        match self.serve_requests().await {
            Err(ApplyError::Store(error)) if error.is_transient() => {
                tracing::debug!(%error, "requests cannot be read");
                Ok(false)
            }
            served => served.map(|_| true),
        }
    }

    /// Carries out the oldest requests. `false` if there were none.
    async fn serve_requests(&mut self) -> Result<bool, ApplyError> {
        self.requests_at = Instant::now();
        let store = self.shared.store.clone();
        let mut open = store.open_requests(&self.options.stream, REQUESTS_AT_A_TIME).await?;
        if open.is_empty() {
            return Ok(false);
        }
        let begun = store.begin_requests(&Vec::from_iter(open.iter().map(|request| request.id))).await?;
        open.retain(|request| begun.contains(&request.id));
        (self.shared.probe)("request-begun");
        let (discards, retries): (Vec<Request>, Vec<Request>) =
            open.into_iter().partition(|request| request.kind == RequestKind::Discard);
        self.discard(&discards).await?;
        self.end(&discards).await?;
        self.retry_requested(retries).await?;
        self.requests_at = Instant::now();
        Ok(true)
    }

    async fn retry_requested(&mut self, mut requests: Vec<Request>) -> Result<(), ApplyError> {
        let wanted: BTreeSet<u64> = requests.iter().map(|request| request.seq).collect();
        let groups = self.shared.parking.lock().await.groups_of(&wanted);
        for group in groups {
            self.retry_group(&group).await?;
            self.tell_attempts().await?;
            (self.shared.probe)("request-tried");
            // Told group by group, since somebody watches.
            let tried = requests.extract_if(.., |request| group.contains(&request.seq)).collect::<Vec<_>>();
            self.end(&tried).await?;
        }
        self.end(&requests).await
    }

    /// Says how the messages of requests stand now.
    async fn end(&self, requests: &[Request]) -> Result<(), ApplyError> {
        if requests.is_empty() {
            return Ok(());
        }
        // What the store says of those that are not set aside any more goes first.
        self.forget_reasons().await?;
        let parked = self.shared.parking.lock().await.seqs();
        let (mut ends, mut journal) = (Vec::new(), Vec::new());
        for request in requests {
            let end = self.end_of(request, parked.contains(&request.seq)).await?;
            journal.extend(self.journal_of(request, &end));
            ends.push((request.id, end));
        }
        Ok(self.shared.store.end_requests(&ends, &journal).await?)
    }

    async fn end_of(&self, request: &Request, is_parked: bool) -> Result<RequestEnd, ApplyError> {
        let store = &self.shared.store;
        let id = MessageId { stream: self.options.stream.clone(), seq: request.seq };
        let outcome = store.outcome_of(&id).await?;
        if is_parked {
            let failure = store.failure_of(&id).await?;
            return Ok(match (failure, outcome) {
                (Some(failure), _) => RequestEnd {
                    status: Status::Failed,
                    error_code: Some(failure.error_code),
                    text: Some(failure.reason),
                    came_too_late: false,
                },
                (None, outcome) => RequestEnd {
                    status: Status::Held,
                    error_code: None,
                    text: outcome.map(|(_, reason)| reason),
                    came_too_late: false,
                },
            });
        }
        let (status, reason) = match outcome {
            None | Some((Status::Held, _)) => (Status::Applied, None),
            Some((status, reason)) => (status, Some(reason)),
        };
        let came_too_late = match request.kind {
            RequestKind::Retry => false,
            RequestKind::Edit => !store.is_edit_used(request.id).await?,
            RequestKind::Discard => status != Status::Discarded,
        };
        let text = if came_too_late { Some("it had ended before".to_owned()) } else { reason };
        Ok(RequestEnd { status, error_code: None, text, came_too_late })
    }

    fn journal_of(&self, request: &Request, end: &RequestEnd) -> Option<(&'static str, String)> {
        if end.came_too_late {
            return None;
        }
        let message = format!("{}:{}", self.options.stream, request.seq);
        let reason = end.text.as_deref().unwrap_or_default();
        match (request.kind, end.status) {
            // Another request may have done it before.
            (RequestKind::Discard, _) if reason != reason_of(request) => None,
            (RequestKind::Discard, _) => Some(("discard", format!("{message} was discarded {reason}"))),
            (RequestKind::Edit, Status::Applied) => Some(("edit", format!("{message} was applied {reason}"))),
            (RequestKind::Edit, status) => {
                Some(("edit", format!("{message} was edited by {}; it is {}", request.by, status.as_str())))
            }
            (RequestKind::Retry, _) => None,
        }
    }
}
