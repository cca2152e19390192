//! Leases, wishes and reports.

use std::time::Duration;

use crossfade_message::{Epoch, Health, Held, StoreError, StreamCounters, StreamReport, Wish};
use crossfade_model::{Direction, Position};
use crossfade_servers::Flavor;

use crate::{capture_updates, client, forward, on_both_servers, started, store};

on_both_servers!(
    one_of_many_gets_the_lease,
    a_lease_passes_on_when_it_ends_or_is_released,
    different_rules_do_not_run_together,
    wishes_and_reports_are_kept,
    a_wish_of_a_run_waits_for_who_takes_the_run_over,
    who_stands_by_shows_while_it_lives,
    settling_never_passes_the_last_message,
    journal_and_marks_are_kept,
);

const TTL: Duration = Duration::from_secs(600);

async fn one_of_many_gets_the_lease(flavor: Flavor) {
    let mut racers = Vec::new();
    for number in 0..6 {
        let store = store(flavor, "lease_race").await;
        racers.push(tokio::spawn(async move {
            store.lease_acquire("forward", &format!("process {number}"), TTL, 1).await.unwrap()
        }));
    }
    let mut winners = Vec::new();
    for racer in racers {
        winners.extend(racer.await.unwrap());
    }
    assert_eq!(winners, [Epoch(1)]);
    let leases = store(flavor, "lease_race").await.leases().await.unwrap();
    assert_eq!(leases.len(), 1);
    assert!(leases[0].live && leases[0].holder.starts_with("process "), "{leases:?}");
}

async fn a_lease_passes_on_when_it_ends_or_is_released(flavor: Flavor) {
    let store = store(flavor, "lease_end").await;
    let short = Duration::from_millis(1);
    let first = store.lease_acquire("forward", "a", short, 1).await.unwrap().unwrap();
    // It is over as soon as the store's clock has moved on.
    let second = loop {
        if let Some(epoch) = store.lease_acquire("forward", "b", TTL, 1).await.unwrap() {
            break epoch;
        }
    };
    assert_eq!((first, second), (Epoch(1), Epoch(2)));
    assert!(!store.lease_renew("forward", first, TTL).await.unwrap(), "the one that lost it cannot renew");
    assert!(store.lease_renew("forward", second, TTL).await.unwrap());
    store.lease_release("forward", first).await.unwrap();
    assert_eq!(store.lease_acquire("forward", "c", TTL, 1).await.unwrap(), None);
    store.lease_release("forward", second).await.unwrap();
    assert!(!store.lease_renew("forward", second, TTL).await.unwrap(), "what was released is not held again");
    assert_eq!(store.lease_acquire("forward", "c", TTL, 1).await.unwrap(), Some(Epoch(3)));
    assert_eq!(store.lease_acquire("forward", "c", TTL, 1).await.unwrap(), Some(Epoch(4)), "its answer was lost");

    store.lease_break("forward", "b").await.unwrap();
    assert_eq!(
        store.lease_acquire("forward", "d", TTL, 1).await.unwrap(),
        None,
        "b holds nothing that could be broken"
    );
    store.lease_break("forward", "c").await.unwrap();
    assert!(!store.lease_renew("forward", Epoch(4), TTL).await.unwrap());
    assert_eq!(store.lease_acquire("forward", "d", TTL, 1).await.unwrap(), Some(Epoch(5)));
}

async fn different_rules_do_not_run_together(flavor: Flavor) {
    let store = store(flavor, "lease_rules").await;
    let forward = store.lease_acquire("forward", "a", TTL, 0xaaaa).await.unwrap().unwrap();
    let refused = store.lease_acquire("reverse", "b", TTL, 0xbbbb).await.unwrap_err();
    assert!(matches!(refused, StoreError::RulesDiffer { .. }));
    let text = refused.to_string();
    assert!(
        text.contains("reverse") && text.contains("forward") && text.contains("aaaa") && text.contains("bbbb"),
        "{text}"
    );
    store.lease_release("forward", forward).await.unwrap();
    assert!(store.lease_acquire("reverse", "b", TTL, 0xbbbb).await.unwrap().is_some());
    assert!(store.lease_acquire("forward", "a", TTL, u64::MAX).await.is_err());
}

/// Whoever takes a run over has locked the directions first, and goes on to the run: with the other order they meet in a deadlock.
async fn a_wish_of_a_run_waits_for_who_takes_the_run_over(flavor: Flavor) {
    let store = store(flavor, "wish_of_run").await;
    let wish = Wish { declared: true, capture: true, apply: true };
    store.set_wish(Direction::Forward, wish).await.unwrap();
    let held = store.hold_switch_run("cutover", "me", Duration::from_secs(60)).await.unwrap();
    let Held::Mine(run) = held else { panic!("nobody else has it") };
    let mut other = client(flavor).await.begin().await.unwrap();
    sqlx::query("SELECT direction FROM direction WHERE pair = 'wish_of_run' FOR UPDATE")
        .fetch_all(&mut *other)
        .await
        .unwrap();
    let wishing = store.set_wish_of_run(run.id, "me", Direction::Forward, Wish { apply: false, ..wish });
    let taking_over = async {
        // Long enough for the wish to be under way; where it is not, this shows less, and fails nothing.
        tokio::time::sleep(Duration::from_millis(500)).await;
        sqlx::query("UPDATE switch_run SET holder = 'another' WHERE id = ?").bind(run.id).execute(&mut *other).await?;
        other.commit().await
    };
    let (wished, taken) = tokio::join!(wishing, taking_over);
    taken.unwrap();
    assert!(!wished.unwrap(), "somebody else has it");
    assert_eq!(store.wish(Direction::Forward).await.unwrap(), Some(wish));
}

async fn wishes_and_reports_are_kept(flavor: Flavor) {
    let store = store(flavor, "wishes").await;
    assert_eq!(store.wish(Direction::Reverse).await.unwrap(), None);
    store.set_wish(Direction::Reverse, Wish::CAPTURE_ONLY).await.unwrap();
    assert_eq!(store.wish(Direction::Reverse).await.unwrap(), Some(Wish::CAPTURE_ONLY));
    assert_eq!(store.wish(Direction::Forward).await.unwrap(), None);

    started(&store, &forward()).await;
    assert_eq!(store.stream_statuses().await.unwrap()[0].report, None);
    let mut report = StreamReport { health: Health::Running, counters: StreamCounters::default() };
    store.report(&forward(), Epoch(1), &report).await.unwrap();
    let first = store.stream_statuses().await.unwrap().remove(0);
    assert_eq!(first.report.as_ref(), Some(&report));
    store.report(&forward(), Epoch(1), &report).await.unwrap();
    let same = store.stream_statuses().await.unwrap().remove(0);
    assert_eq!((same.since, same.reported_at), (first.since, first.reported_at), "nothing new, nothing written");
    report.counters.applied = 5;
    store.report(&forward(), Epoch(1), &report).await.unwrap();
    let counted = store.stream_statuses().await.unwrap().remove(0);
    assert_eq!(counted.since, first.since);
    assert!(counted.reported_at > first.reported_at);
    report.health = Health::Retrying { reason: "the target is away".to_owned() };
    store.report(&forward(), Epoch(1), &report).await.unwrap();
    let retrying = store.stream_statuses().await.unwrap().remove(0);
    assert!(retrying.since > first.since);
    assert_eq!(retrying.report.as_ref(), Some(&report));
    report.health = Health::Retrying { reason: "the target is busy".to_owned() };
    store.report(&forward(), Epoch(1), &report).await.unwrap();
    let still = store.stream_statuses().await.unwrap().remove(0);
    assert_eq!((still.since, still.report), (retrying.since, Some(report)), "retried since the first failure");
}

async fn who_stands_by_shows_while_it_lives(flavor: Flavor) {
    let store = store(flavor, "standby").await;
    let (ttl, long) = (Duration::from_secs(30), "h".repeat(190));
    assert_eq!(store.lease_acquire("forward", "a/1/x", ttl, 7).await.unwrap(), Some(Epoch(1)));
    assert!(store.standbys().await.unwrap().is_empty());
    store.stand_by("forward", &long, ttl, 7).await.unwrap();
    store.stand_by("forward", "a/3/z", ttl, 7).await.unwrap();
    let first = store.standbys().await.unwrap();
    assert_eq!(first.iter().map(|standby| standby.holder.as_str()).collect::<Vec<_>>(), [long.as_str(), "a/3/z"]);
    assert!(first.iter().all(|standby| standby.subject == "forward"));
    assert_eq!(store.leases().await.unwrap().len(), 1, "who stands by holds nothing");
    store.stand_by("forward", &long, ttl, 7).await.unwrap();
    assert_eq!(store.standbys().await.unwrap(), first, "since when does not change");

    store.stand_down("forward", "a/3/z").await.unwrap();
    store.stand_by("forward", &long, Duration::ZERO, 7).await.unwrap();
    assert!(store.standbys().await.unwrap().is_empty(), "one has ended, one says nothing any more");
    store.stand_by("forward", "a/4/w", ttl, 7).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM lease WHERE pair = 'standby'")
        .fetch_one(&client(flavor).await)
        .await
        .unwrap();
    assert_eq!(rows, 2, "what the dead leave behind goes when the next one comes");
}

async fn settling_never_passes_the_last_message(flavor: Flavor) {
    let store = store(flavor, "settle").await;
    let state = started(&store, &forward()).await;
    capture_updates(&store, &state, 5).await;
    store.settle(&forward(), 3).await.unwrap();
    store.settle(&forward(), 2).await.unwrap();
    assert_eq!(store.stream_state(&forward()).await.unwrap().settled_seq, 3);
    let beyond = store.settle(&forward(), 6).await.unwrap_err();
    assert!(matches!(beyond, StoreError::SettledBeyond { settled: 6, last: 5, .. }), "{beyond}");
}

async fn journal_and_marks_are_kept(flavor: Flavor) {
    let store = store(flavor, "journal").await;
    store.journal("init", "tables created").await.unwrap();
    store.journal("start", "forward 🚀").await.unwrap();
    let entries = store.journal_entries(10).await.unwrap();
    assert_eq!(entries.iter().map(|entry| entry.text.as_str()).collect::<Vec<_>>(), ["forward 🚀", "tables created"]);
    let position = |text: &str| Position::MySql { executed: text.parse().unwrap() };
    let old = position("3e11fa47-71ca-11e1-9e33-c80aa9429562:1-5:blue:7");
    let new = Position::MariaDb { gtid: "0-1-100,1-1-7".parse().unwrap() };
    store.keep_mark("start", &old, &new, Some("by init")).await.unwrap();
    let again = store.keep_mark("start", &new, &old, None).await.unwrap_err();
    assert!(matches!(again, StoreError::MarkExists(_)), "{again}");
    let marks = store.marks().await.unwrap();
    assert_eq!(marks.len(), 1);
    assert_eq!(
        (&marks[0].old_position, &marks[0].new_position, marks[0].note.as_deref()),
        (&old, &new, Some("by init"))
    );
}
