//! Authority over entities, kept with the messages around it.

use crossfade_message::{CaptureError, CapturedAuthority, Passed};
use crossfade_model::{EntityKey, Given, Seen, Side};
use crossfade_rules::AuthorityChange;
use crossfade_servers::Flavor;

use crate::{at, capture_updates, forward, on_both_servers, reverse, started, store, update};

on_both_servers!(authority_holds_from_its_place_on, a_batch_that_is_thrown_away_leaves_none, keys_are_told_apart);

fn key(text: &str) -> EntityKey {
    EntityKey::parse(text).unwrap()
}

fn captured(entity: EntityKey, side: Side, version: u64, from_seq: u64) -> CapturedAuthority {
    CapturedAuthority { given: Given { entity, side, version }, from_seq }
}

async fn authority_holds_from_its_place_on(flavor: Flavor) {
    let store = store(flavor, "authority").await;
    let state = started(&store, &forward()).await;
    let state = capture_updates(&store, &state, 3).await;
    let authority = [captured(key("7"), Side::New, 1, 4), captured(key("8"), Side::New, 1, 4)];
    let passed = Passed { authority: &authority, ..Passed::default() };
    let batch = [update(4, 7, "late", 9)];
    let state = store.capture_all(&state, &batch, &[], &at(4), &Seen::default(), passed).await.unwrap().state;
    // A position alone, and the same once more, as after a reconnect that read it again.
    let authority = [captured(key("7"), Side::Old, 2, 5), captured(EntityKey::rest(), Side::New, 1, 5)];
    let passed = Passed { authority: &authority, ..Passed::default() };
    let state = store.capture_all(&state, &[], &[], &at(5), &Seen::default(), passed).await.unwrap().state;
    store.capture_all(&state, &[], &[], &at(6), &Seen::default(), passed).await.unwrap();

    let (seven, eight, nine, rest) = (key("7"), key("8"), key("9"), EntityKey::rest());
    let found = store.authority(&forward(), &[&seven, &eight, &nine, &rest]).await.unwrap();
    let change = |from_seq, side, version| AuthorityChange { from_seq, side, version };
    assert_eq!(found[&seven], [change(4, Side::New, 1), change(5, Side::Old, 2)]);
    assert_eq!(found[&eight], [change(4, Side::New, 1)]);
    assert_eq!(found[&rest], [change(5, Side::New, 1)]);
    assert!(!found.contains_key(&nine));
    assert!(store.authority(&reverse(), &[&seven]).await.unwrap().is_empty(), "of the other stream");
    let turns = async |first, last| store.authority_turns(&forward(), first, last).await.unwrap();
    assert_eq!((turns(1, 3).await, turns(1, 4).await, turns(4, 4).await), (None, Some(4), None));
    assert_eq!((turns(4, 9).await, turns(5, 9).await), (Some(5), None));
}

async fn a_batch_that_is_thrown_away_leaves_none(flavor: Flavor) {
    let store = store(flavor, "thrown").await;
    let old = started(&store, &forward()).await;
    capture_updates(&store, &old, 1).await;
    let authority = [captured(key("7"), Side::New, 1, 1)];
    let passed = Passed { authority: &authority, ..Passed::default() };
    let thrown = store.capture_all(&old, &[], &[], &at(9), &Seen::default(), passed).await.unwrap_err();
    assert!(matches!(thrown, CaptureError::Superseded { .. }), "{thrown}");
    assert!(store.authority(&forward(), &[&key("7")]).await.unwrap().is_empty());
}

/// As they are spelled, with their spaces.
async fn keys_are_told_apart(flavor: Flavor) {
    let store = store(flavor, "keys").await;
    let state = started(&store, &forward()).await;
    let keys = ["ann", "Ann", "ann ", "änn", "0x00"].map(key);
    let authority: Vec<CapturedAuthority> =
        (1..).zip(&keys).map(|(version, key)| captured(key.clone(), Side::New, version, 1)).collect();
    let passed = Passed { authority: &authority, ..Passed::default() };
    store.capture_all(&state, &[], &[], &at(1), &Seen::default(), passed).await.unwrap();
    let found = store.authority(&forward(), &keys.each_ref()).await.unwrap();
    let versions: Vec<u64> = keys.iter().map(|key| found[key][0].version).collect();
    assert_eq!(versions, [1, 2, 3, 4, 5]);
}
