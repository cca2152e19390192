//! What keeps changes from going round: canaries, and the stop of both directions.

use crossfade_message::{Canary, LostTag, Wish};
use crossfade_model::{Direction, Position};
use crossfade_servers::Flavor;

use crate::{forward, on_both_servers, reverse, store};

on_both_servers!(
    a_canary_is_announced_and_lost,
    a_breaker_stops_both_directions_once,
    a_circuit_stops_its_own_direction_once,
);

async fn a_canary_is_announced_and_lost(flavor: Flavor) {
    let store = store(flavor, "canary").await;
    let position = |offset| Position::File { server: "s".to_owned(), file: "binlog.000007".to_owned(), offset };
    assert_eq!(store.canary(&forward()).await.unwrap(), None);
    store.announce_canary(&forward(), 7, &position(40)).await.unwrap();
    let announced = Canary { counter: 7, position: position(40), lost: None };
    assert_eq!(store.canary(&forward()).await.unwrap(), Some(announced.clone()));
    assert_eq!(store.canary(&reverse()).await.unwrap(), None);

    for lost in [LostTag::Hidden, LostTag::Untagged] {
        store.canary_lost(&forward(), 7, lost).await.unwrap();
        assert_eq!(store.canary(&forward()).await.unwrap(), Some(Canary { lost: Some(lost), ..announced.clone() }));
    }
    store.announce_canary(&forward(), 8, &position(50)).await.unwrap();
    store.canary_lost(&forward(), 7, LostTag::Hidden).await.unwrap();
    let last = Canary { counter: 8, position: position(50), lost: None };
    assert_eq!(store.canary(&forward()).await.unwrap(), Some(last), "what was said of an older one is of no interest");
}

async fn a_breaker_stops_both_directions_once(flavor: Flavor) {
    let store = store(flavor, "breaker").await;
    store.set_wish(Direction::Forward, Wish::RUN).await.unwrap();
    store.set_wish(Direction::Reverse, Wish::RUN).await.unwrap();
    assert!(store.stop_both("a row goes round").await.unwrap());
    assert!(!store.stop_both("the other process says so too").await.unwrap());
    for direction in [Direction::Forward, Direction::Reverse] {
        assert_eq!(store.wish(direction).await.unwrap(), Some(Wish::CAPTURE_ONLY));
        assert_eq!(store.stop_reason(direction).await.unwrap().as_deref(), Some("a row goes round"));
    }
    let journal = store.journal_entries(10).await.unwrap();
    assert_eq!(journal.len(), 1);
    assert_eq!((journal[0].kind.as_str(), journal[0].text.as_str()), ("breaker", "a row goes round"));

    store.set_wish(Direction::Forward, Wish::RUN).await.unwrap();
    assert_eq!(store.stop_reason(Direction::Forward).await.unwrap(), None);
    assert!(store.stop_reason(Direction::Reverse).await.unwrap().is_some());
    store.set_wish(Direction::Reverse, Wish::OFF).await.unwrap();
    assert!(store.stop_both("again").await.unwrap());
    assert_eq!(store.wish(Direction::Reverse).await.unwrap(), Some(Wish::OFF), "what is off stays off");
    assert_eq!(store.stop_reason(Direction::Reverse).await.unwrap(), None);
}

async fn a_circuit_stops_its_own_direction_once(flavor: Flavor) {
    let store = store(flavor, "circuit").await;
    store.set_wish(Direction::Forward, Wish::RUN).await.unwrap();
    store.set_wish(Direction::Reverse, Wish::RUN).await.unwrap();
    store.stop_direction(Direction::Forward, "too much is refused").await.unwrap();
    store.stop_direction(Direction::Forward, "and again").await.unwrap();
    assert_eq!(store.wish(Direction::Forward).await.unwrap(), Some(Wish::CAPTURE_ONLY));
    assert_eq!(store.wish(Direction::Reverse).await.unwrap(), Some(Wish::RUN));
    assert_eq!(store.stop_reason(Direction::Forward).await.unwrap().as_deref(), Some("too much is refused"));
    let journal = store.journal_entries(10).await.unwrap();
    assert_eq!(journal.len(), 1);
    assert_eq!(journal[0].kind, "circuit");
    store.set_wish(Direction::Forward, Wish::RUN).await.unwrap();
    assert_eq!(store.stop_reason(Direction::Forward).await.unwrap(), None);
}
