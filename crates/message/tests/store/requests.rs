//! What people ask for messages that are set aside, and how failed ones are found.

use chrono::{Duration, Utc};
use crossfade_message::{Failure, FailureFilter, NewRequest, Outcome, RequestEnd, RequestKind, Status};
use crossfade_model::{Message, MessageId, RowOp, TableName, Value};
use crossfade_servers::Flavor;

use crate::{capture_updates, forward, noise, on_both_servers, started, store, update};

on_both_servers!(
    requests_end_once_and_are_withdrawn_only_before_they_begin,
    the_last_edit_of_a_message_counts,
    a_row_as_large_as_a_packet_is_edited,
    failures_are_found_by_what_they_are_about,
    a_message_that_is_set_aside_has_one_reason,
);

fn request(seq: u64, kind: RequestKind) -> NewRequest {
    NewRequest { id: id(seq), kind, reason: None, edited: None }
}

fn id(seq: u64) -> MessageId {
    MessageId { stream: forward(), seq }
}

fn end(status: Status) -> RequestEnd {
    RequestEnd { status, error_code: None, text: Some("why".to_owned()), came_too_late: false }
}

fn failure(seq: u64, table: &str, code: &str) -> Failure {
    Failure {
        seq,
        table: TableName::new("app", table),
        op: RowOp::Update,
        error_code: code.to_owned(),
        error_text: "it is refused".to_owned(),
        attempts: 1,
        retry_in: None,
    }
}

async fn requests_end_once_and_are_withdrawn_only_before_they_begin(flavor: Flavor) {
    let store = store(flavor, "requests").await;
    started(&store, &forward()).await;
    let discard = NewRequest { reason: Some("entered twice".to_owned()), ..request(2, RequestKind::Discard) };
    let asked = [request(1, RequestKind::Retry), discard, request(3, RequestKind::Retry)];
    let ids = store.make_requests(&asked, "alice@host").await.unwrap();
    let open = store.open_requests(&forward(), 10).await.unwrap();
    assert_eq!(open.iter().map(|request| request.id).collect::<Vec<_>>(), ids);
    assert_eq!((open[1].seq, open[1].kind, open[1].by.as_str()), (2, RequestKind::Discard, "alice@host"));
    assert_eq!(open[1].reason.as_deref(), Some("entered twice"));
    assert_eq!(store.open_requests(&forward(), 1).await.unwrap().len(), 1);

    let begun = store.begin_requests(&ids[..2]).await.unwrap();
    assert_eq!(begun, ids[..2].iter().copied().collect());
    assert_eq!(store.withdraw_requests(&ids).await.unwrap(), 1, "what was begun stays");
    assert!(store.begin_requests(&ids[2..]).await.unwrap().is_empty(), "what was withdrawn does not begin");

    let too_late = RequestEnd { came_too_late: true, ..end(Status::Applied) };
    let failed = RequestEnd { error_code: Some("1062".to_owned()), ..end(Status::Failed) };
    let line = ("discard", "forward/old:2 was discarded".to_owned());
    store.end_requests(&[(ids[0], failed.clone()), (ids[1], too_late.clone())], &[line]).await.unwrap();
    store.end_requests(&[(ids[0], end(Status::Applied))], &[]).await.unwrap();
    let ends = store.request_ends(&ids).await.unwrap();
    assert_eq!(ends.into_iter().collect::<Vec<_>>(), [(ids[0], failed), (ids[1], too_late)], "the first end counts");
    assert!(store.open_requests(&forward(), 10).await.unwrap().is_empty());
    assert_eq!(store.journal_entries(1).await.unwrap()[0].text, "forward/old:2 was discarded");
    assert!(store.request_ends(&[]).await.unwrap().is_empty());
}

async fn the_last_edit_of_a_message_counts(flavor: Flavor) {
    let store = store(flavor, "edits").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 3).await;
    let edit =
        |message: Message| NewRequest { edited: Some(message.clone()), ..request(message.seq, RequestKind::Edit) };
    let asked = [edit(update(2, 2, "first", 2)), edit(update(3, 3, "other", 3)), edit(update(2, 2, "second", 2))];
    let ids = store.make_requests(&asked, "alice@host").await.unwrap();

    assert!(store.edits(&forward(), &[1, 2].into()).await.unwrap().is_empty(), "none is begun");
    store.begin_requests(&ids).await.unwrap();
    let edits = store.edits(&forward(), &[1, 2].into()).await.unwrap();
    assert_eq!(edits.keys().copied().collect::<Vec<_>>(), [2]);
    assert_eq!(edits[&2].request, ids[2]);
    assert_eq!(edits[&2].message.change.after.as_ref().unwrap()[1], Value::Text("second".to_owned()));
    assert_eq!(edits[&2].message.change, update(2, 2, "second", 2).change);

    store.note_edits_used(&[ids[2]]).await.unwrap();
    assert!(store.is_edit_used(ids[2]).await.unwrap() && !store.is_edit_used(ids[0]).await.unwrap());
    let shown = store.edits_of(&id(2)).await.unwrap();
    assert_eq!(shown.iter().map(|edit| edit.used).collect::<Vec<_>>(), [false, true]);
    assert_eq!(shown[0].image.as_ref().unwrap().get(), r#"{"id":2,"name":"first"}"#);
    // The message stays as it was captured.
    let captured = store.show_message(&id(2)).await.unwrap().unwrap();
    assert!(captured.after_image.unwrap().get().contains("name 2"));
}

/// MariaDB takes 16 MiB at once unless told otherwise: the row's image and the row itself are more.
async fn a_row_as_large_as_a_packet_is_edited(flavor: Flavor) {
    let store = store(flavor, "large_edit").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 1).await;
    let edited = update(1, 1, &noise(12 << 20), 1);
    let asked = NewRequest { edited: Some(edited.clone()), ..request(1, RequestKind::Edit) };
    let ids = store.make_requests(&[asked], "alice@host").await.unwrap();
    store.begin_requests(&ids).await.unwrap();
    let edits = store.edits(&forward(), &[1].into()).await.unwrap();
    assert!(edits[&1].message.change == edited.change, "not what was asked for");
    let shown = store.edits_of(&id(1)).await.unwrap().remove(0);
    assert!(shown.image.is_some_and(|image| image.get().len() > 12 << 20), "people do not see it");
}

async fn failures_are_found_by_what_they_are_about(flavor: Flavor) {
    let store = store(flavor, "found").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 3).await;
    let failures = [failure(1, "users", "1062"), failure(2, "orders", "1062"), failure(3, "users", "1406")];
    store.record_failures(&forward(), &failures).await.unwrap();
    let found = async |filter: FailureFilter| -> Vec<u64> {
        let failures = store.list_failures(&filter, 10).await.unwrap();
        failures.iter().map(|failure| failure.seq).collect()
    };
    let all = FailureFilter::default();
    assert_eq!(found(all.clone()).await, [3, 2, 1], "the newest first");
    let code = Some("1062".to_owned());
    assert_eq!(found(FailureFilter { error_code: code.clone(), ..all.clone() }).await, [2, 1]);
    let users = Some(TableName::new("app", "users"));
    assert_eq!(found(FailureFilter { error_code: code, table: users, ..all.clone() }).await, [1]);
    let later = Some(Utc::now() + Duration::hours(1));
    assert_eq!(found(FailureFilter { since: later, ..all.clone() }).await, [] as [u64; 0]);
    assert_eq!(store.list_failures(&all, 1).await.unwrap().len(), 1);
    let one = store.failure_of(&id(2)).await.unwrap().unwrap();
    assert_eq!((one.table_name.as_str(), one.attempts, one.reason.as_str()), ("orders", 1, "it is refused"));
    assert!(store.failure_of(&id(9)).await.unwrap().is_none());
}

async fn a_message_that_is_set_aside_has_one_reason(flavor: Flavor) {
    let store = store(flavor, "one_reason").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 2).await;
    let held = |seq| Outcome {
        seq,
        table: TableName::new("app", "users"),
        status: Status::Held,
        reason: "nobody can judge".to_owned(),
        winner: None,
        source_clock: None,
        target_clock: None,
    };
    store.record_failures(&forward(), &[failure(1, "users", "1062"), failure(2, "users", "1062")]).await.unwrap();
    store.record_outcomes(&forward(), &[held(1), held(2)]).await.unwrap();
    store.clear_failures(&forward(), &[1]).await.unwrap();
    store.clear_held(&forward(), &[2]).await.unwrap();
    assert!(store.failure_of(&id(1)).await.unwrap().is_none() && store.failure_of(&id(2)).await.unwrap().is_some());
    let outcome = store.outcome_of(&id(1)).await.unwrap();
    assert_eq!(outcome, Some((Status::Held, "nobody can judge".to_owned())));
    assert_eq!(store.outcome_of(&id(2)).await.unwrap(), None);
    assert_eq!(store.set_aside(&forward()).await.unwrap(), [1, 2].into());
}
