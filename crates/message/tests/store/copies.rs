//! How far copies are.

use crossfade_message::{CopyOwner, CopyState, Store, TableCopy};
use crossfade_model::TableName;
use crossfade_servers::Flavor;

use crate::{on_both_servers, store};

on_both_servers!(what_was_stopped_goes_on_where_it_was, what_begins_anew_has_as_many_rows_as_before);

async fn copy(store: &Store) -> TableCopy {
    store.copies().await.unwrap().remove(0)
}

async fn stopped_and_resumed(store: &Store) -> CopyState {
    let TableCopy { table, round, .. } = copy(store).await;
    let owner = CopyOwner { table, round, epoch: 1 };
    store.set_copy_state(&owner, CopyState::Stopped, Some("the disk is full")).await.unwrap();
    store.resume_copies().await.unwrap();
    copy(store).await.state
}

/// A copy that stopped while its table was cleared would otherwise leave there what was to go.
async fn what_was_stopped_goes_on_where_it_was(flavor: Flavor) {
    let store = store(flavor, "stopped_copies").await;
    let table = TableName::new("app", "users");
    store.add_copies(&[(table.clone(), Some(100))], &[]).await.unwrap();
    store.adopt_copies(1).await.unwrap();
    assert_eq!(stopped_and_resumed(&store).await, CopyState::Waiting);
    for round in 1..3 {
        let owner = CopyOwner { table: table.clone(), round, epoch: 1 };
        store.begin_copy(&owner, None, 100).await.unwrap();
        assert_eq!(stopped_and_resumed(&store).await, CopyState::Copying);
        assert!(store.restart_copy(&table).await.unwrap());
        assert_eq!(stopped_and_resumed(&store).await, CopyState::Clearing, "in round {round}");
    }
}

async fn what_begins_anew_has_as_many_rows_as_before(flavor: Flavor) {
    let store = store(flavor, "copies_anew").await;
    let table = TableName::new("app", "users");
    store.add_copies(&[(table.clone(), Some(100))], &[]).await.unwrap();
    assert!(store.restart_copy(&table).await.unwrap());
    let anew = copy(&store).await;
    assert_eq!((anew.state, anew.total_rows, anew.counts.read), (CopyState::Clearing, Some(100), 0));
    assert!(!store.restart_copy(&TableName::new("app", "unknown")).await.unwrap());
}
