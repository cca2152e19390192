//! Comparisons in the background: whoever makes one is told when a newer process has it.

use crossfade_message::{Comparisons, NewDifference, OpenVerification, Store, StoreError};
use crossfade_model::TableName;
use crossfade_servers::Flavor;

use crate::{on_both_servers, store};

fn table() -> TableName {
    TableName::new("app", "users")
}

async fn keep(store: &Store, round: OpenVerification) -> Result<(), StoreError> {
    let difference = NewDifference {
        table: table(),
        kind: "missing_on_new",
        row_key: None,
        columns: "[]".to_owned(),
        old_image: None,
        new_image: None,
    };
    store.keep_difference(round, &difference).await
}

async fn kept(store: &Store, round: u64) -> usize {
    store.differences(round, None, 10).await.unwrap().len()
}

fn is_overtaken<T>(result: Result<T, StoreError>) -> bool {
    matches!(result, Err(StoreError::Overtaken { .. }))
}

async fn a_round_belongs_to_the_newest_process(flavor: Flavor) {
    let store = store(flavor, "rounds_newest").await;
    let old = store.begin_verification("--continuous", Some(1), Some(1)).await.unwrap();
    keep(&store, old).await.unwrap();
    let new = store.adopt_round(old.id, 2).await.unwrap();
    assert!(is_overtaken(store.adopt_round(old.id, 1).await));
    keep(&store, new).await.unwrap();
    store.forget_differences(old, &table()).await.unwrap();
    assert_eq!(kept(&store, new.id).await, 2);
    assert!(is_overtaken(store.give_up_round(old.id, 1).await));
    assert!(is_overtaken(keep(&store, old).await));
    assert!(is_overtaken(store.end_verification(old, "[]").await));
    store.forget_differences(new, &table()).await.unwrap();
    assert_eq!(kept(&store, new.id).await, 0);
}

async fn a_round_that_is_given_up_is_gone_with_what_it_found(flavor: Flavor) {
    let store = store(flavor, "rounds_given_up").await;
    let ended = store.begin_verification("--continuous", Some(1), Some(1)).await.unwrap();
    store.end_verification(ended, "[]").await.unwrap();
    assert!(is_overtaken(store.give_up_round(ended.id, 1).await));
    for finds in [0, 2] {
        let round = store.begin_verification("--continuous", Some(1), Some(1)).await.unwrap();
        for _ in 0..finds {
            keep(&store, round).await.unwrap();
        }
        store.give_up_round(round.id, 2).await.unwrap();
        assert_eq!(kept(&store, round.id).await, 0);
        assert!(is_overtaken(keep(&store, round).await));
        assert!(is_overtaken(store.end_verification(round, "[]").await));
    }
    let left = store.verifications(Comparisons::Rounds, 10).await.unwrap();
    assert_eq!(left.iter().map(|round| round.id).collect::<Vec<_>>(), [ended.id]);
}

on_both_servers!(a_round_belongs_to_the_newest_process, a_round_that_is_given_up_is_gone_with_what_it_found);
