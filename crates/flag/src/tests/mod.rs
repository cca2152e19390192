//! Against a server in memory, by a clock that only moves when nobody has anything to do.

mod entity;
mod fake;
mod hazard;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::{Fallback, FlagClient, FlagError, Phase, Side, WriteGuard};
use fake::{Fake, Mood};

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

async fn connected(fake: &Fake) -> FlagClient {
    fake.builder().connect().await.expect("it answers")
}

async fn guard(client: &FlagClient) -> WriteGuard {
    client.begin_write().await.expect("the flag is known")
}

fn is_unknown<T>(told: &Result<T, FlagError>) -> bool {
    matches!(told, Err(FlagError::Unknown { .. }))
}

/// How long a write is still let in.
async fn until_refused(client: &FlagClient) -> Duration {
    let begun = Instant::now();
    while let Ok(guard) = client.begin_write().await {
        drop(guard);
        assert!(begun.elapsed() < ms(60_000), "writes are let in for ever");
        sleep(ms(1)).await;
    }
    begun.elapsed()
}

#[tokio::test(start_paused = true)]
async fn reads_and_writes_follow_the_flag() {
    let fake = Fake::new(Phase::OldOnly);
    let client = connected(&fake).await;
    assert!(client.instance().starts_with("web-1-"), "{}", client.instance());
    for (version, phase) in (6..).zip([Phase::WriteBoth, Phase::ReadNew, Phase::NewOnly, Phase::WriteBoth]) {
        fake.set(version, phase, false);
        sleep(ms(10)).await;
        assert_eq!(client.version(), Ok(version));
        assert_eq!(client.phase(), Ok(phase));
        assert_eq!(client.is_read_new(), Ok(phase.is_read_new()));
        assert_eq!(client.is_write_old(), Ok(phase.is_write_old()));
        assert_eq!(client.is_write_new(), Ok(phase.is_write_new()));
        let guard = guard(&client).await;
        assert_eq!((guard.side(), guard.version(), guard.phase()), (phase.writes_to(), version, phase));
        assert_eq!((guard.is_write_old(), guard.is_write_new()), (phase.is_write_old(), phase.is_write_new()));
    }
    assert_eq!(fake.acknowledged(), [9]);
}

#[tokio::test(start_paused = true)]
async fn nobody_writes_when_the_server_has_been_away_for_max_age() {
    let fake = Fake::new(Phase::OldOnly);
    let client = connected(&fake).await;
    sleep(ms(60_000)).await;
    fake.feel(Mood::Gone);
    let held = guard(&client).await;
    let refused = until_refused(&client).await;
    assert!(refused > ms(2_000) && refused <= ms(5_000), "{refused:?}");
    let told = client.begin_write().await;
    assert!(told.as_ref().is_err_and(|error| error.to_string().contains("cannot be reached")), "{told:?}");
    sleep(ms(5_000)).await;
    assert!(is_unknown(&client.is_read_new()) && is_unknown(&client.version()) && is_unknown(&client.is_write_old()));
    // The server has not given it up yet when its guards are no longer valid.
    assert!(!held.is_still_valid());

    fake.feel(Mood::Well);
    sleep(ms(2_000)).await;
    assert_eq!(guard(&client).await.side(), Side::Old);
    assert_eq!(client.trouble(), None);
    assert!(!held.is_still_valid(), "what was not waited for once never is again");
}

#[tokio::test(start_paused = true)]
async fn the_server_waits_for_an_instance_longer_than_its_guards_are_valid() {
    let fake = Fake::new(Phase::OldOnly);
    let client = connected(&fake).await;
    // It hears everything, and answers nothing: it waits for longer than the client can know.
    for mood in [Mood::Mute, Mood::Gone] {
        fake.feel(Mood::Well);
        sleep(ms(7_000)).await;
        let held = guard(&client).await;
        assert!(held.remaining().is_some_and(|left| left > ms(4_000) && left <= ms(9_000)), "{:?}", held.remaining());
        fake.feel(mood);
        held.expired().await;
        assert!(!held.is_still_valid());
        assert_eq!(fake.acknowledged(), [5], "{mood:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn ages_count_from_before_the_question_was_sent() {
    let fake = Fake::new(Phase::OldOnly);
    fake.feel(Mood::Slow(ms(20), ms(1_300)));
    let begun = Instant::now();
    let client = connected(&fake).await;
    fake.feel(Mood::Gone);
    // Two questions, each answered after 1,320 ms: the second one counts from when it was sent.
    assert!(begun.elapsed() >= ms(2 * 1_320), "{:?}", begun.elapsed());
    until_refused(&client).await;
    let refused = begun.elapsed();
    assert!(refused >= ms(6_300) && refused <= ms(6_330), "{refused:?}");
}

#[tokio::test(start_paused = true)]
async fn a_version_is_acknowledged_when_no_guard_of_an_earlier_one_lives() {
    let fake = Fake::new(Phase::WriteBoth);
    let client = connected(&fake).await;
    let (first, second) = (guard(&client).await, guard(&client).await);
    fake.set(6, Phase::WriteBoth, false);
    sleep(ms(1_000)).await;
    let later = guard(&client).await;
    assert_eq!(later.version(), 6);
    drop(first);
    sleep(ms(30_000)).await;
    assert_eq!(fake.acknowledged(), [5], "it is still registered, by the version of the guard that lives");
    assert!(second.is_still_valid() && later.is_still_valid());
    drop(second);
    sleep(ms(1)).await;
    assert_eq!(fake.acknowledged(), [6]);
}

#[tokio::test(start_paused = true)]
async fn a_version_that_moves_on_during_a_long_guard_waits_for_it() {
    let fake = Fake::new(Phase::WriteBoth);
    let client = connected(&fake).await;
    let long = guard(&client).await;
    // A cutover that gives up, and another one.
    for version in [6, 8, 10] {
        fake.set(version, Phase::WriteBoth, true);
        sleep(ms(10_000)).await;
        assert_eq!(fake.acknowledged(), [5]);
        fake.set(version + 1, Phase::WriteBoth, false);
        sleep(ms(1_000)).await;
        assert!(long.is_still_valid());
        assert_eq!((long.version(), long.side()), (5, Side::Old));
        assert_eq!(guard(&client).await.version(), version + 1);
    }
    drop(long);
    fake.until_acknowledged(&[11]).await;
}

#[tokio::test(start_paused = true)]
async fn at_a_fence_a_write_waits_and_goes_to_the_new_side() {
    let fake = Fake::new(Phase::WriteBoth);
    let client = connected(&fake).await;
    let before = guard(&client).await;
    fake.set(6, Phase::WriteBoth, true);
    sleep(ms(10)).await;
    assert_eq!(client.is_read_new(), Ok(false), "reads go on");
    let (waiting, since) = (client.clone(), Instant::now());
    let waiting = tokio::spawn(async move { waiting.begin_write().await });
    sleep(ms(3_000)).await;
    assert!(!waiting.is_finished());
    assert_eq!(fake.acknowledged(), [5]);
    drop(before);
    fake.until_acknowledged(&[6]).await;
    sleep(ms(500)).await;
    assert!(!waiting.is_finished());
    fake.set(7, Phase::ReadNew, false);
    let guard = waiting.await.expect("no panic").expect("the fence is over");
    assert_eq!((guard.side(), guard.version()), (Side::New, 7));
    assert!(since.elapsed() < ms(3_600), "{:?}", since.elapsed());
    fake.until_acknowledged(&[7]).await;
}

#[tokio::test(start_paused = true)]
async fn a_fence_is_never_lifted_by_the_clients_clock() {
    let fake = Fake::new(Phase::WriteBoth);
    let client = fake.builder().fence_wait(ms(2_000)).connect().await.expect("it answers");
    fake.set(6, Phase::WriteBoth, true);
    sleep(ms(10)).await;
    for _ in 0..100 {
        let begun = Instant::now();
        let told = client.begin_write().await;
        assert_eq!(told.err(), Some(FlagError::Fenced { version: 6, waited: ms(2_000) }));
        assert!(begun.elapsed() < ms(2_010), "{:?}", begun.elapsed());
    }
    // While it waits, what it knows grows too old.
    fake.feel(Mood::Gone);
    sleep(ms(4_000)).await;
    assert!(is_unknown(&client.begin_write().await));
    assert_eq!(fake.acknowledged(), [6]);
}

#[tokio::test(start_paused = true)]
async fn who_comes_during_a_fence_waits_for_its_end() {
    let fake = Fake::new(Phase::WriteBoth);
    fake.set(6, Phase::WriteBoth, true);
    let client = connected(&fake).await;
    assert_eq!(fake.acknowledged(), [6]);
    assert!(timeout(ms(1_000), client.begin_write()).await.is_err());
    fake.set(7, Phase::ReadNew, false);
    assert_eq!(guard(&client).await.version(), 7);
}

#[tokio::test(start_paused = true)]
async fn who_registers_writes_by_the_flag_of_after_that() {
    let fake = Fake::new(Phase::WriteBoth);
    // The fence comes when the flag was read, and did not wait for this instance, which was not known yet.
    fake.feel(Mood::Slow(ms(50), ms(50)));
    let connecting = tokio::spawn({
        let builder = fake.builder();
        async move { builder.connect().await }
    });
    sleep(ms(60)).await;
    assert!(fake.acknowledged().is_empty());
    fake.set(6, Phase::WriteBoth, true);
    let client = connecting.await.expect("no panic").expect("it answers");
    assert!(timeout(ms(0), client.begin_write()).await.is_err(), "it would write by version 5");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_client_takes_the_instance_off_the_list() {
    let fake = Fake::new(Phase::OldOnly);
    let client = connected(&fake).await;
    drop(client.clone());
    sleep(ms(10)).await;
    assert_eq!(fake.acknowledged(), [5], "another clone is left");
    drop(client);
    sleep(ms(10)).await;
    assert!(fake.inside().instances.is_empty());

    // What is under way is waited for.
    let client = connected(&fake).await;
    let guard = guard(&client).await;
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    sleep(ms(20_000)).await;
    assert_eq!(client.begin_write().await.err(), Some(FlagError::Closed));
    assert_eq!(fake.acknowledged(), [5]);
    assert!(guard.is_still_valid());
    drop(guard);
    closing.await.expect("no panic");
    assert!(fake.inside().instances.is_empty());
    client.close().await;
    let asked = fake.inside().asked.len();
    sleep(ms(20_000)).await;
    assert_eq!(fake.inside().asked.len(), asked, "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_given_up_leaves_nothing_behind() {
    let fake = Fake::new(Phase::OldOnly);
    fake.feel(Mood::Mute);
    assert!(timeout(ms(300), fake.builder().connect()).await.is_err());
    fake.feel(Mood::Well);
    sleep(ms(5_000)).await;
    assert!(fake.inside().instances.is_empty());
    fake.feel(Mood::Refusing);
    let told = fake.builder().connect_wait(ms(700)).connect().await;
    assert!(
        told.as_ref().is_err_and(|error| error.to_string().contains("it answers 503: the store is away")),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_counts_as_none() {
    let fake = Fake::new(Phase::OldOnly);
    let moods = [
        (Mood::Refusing, "it answers 503: the store is away"),
        (Mood::Says(200, "<html>welcome</html>"), "no flag"),
        (Mood::Says(200, r#"{"pair":"users","version":9,"flag":7,"phase":"x","fenced":false}"#), "7 is no value"),
        (Mood::Says(200, r#"{"pair":"other","version":9,"flag":2,"phase":"read_new","fenced":false}"#), "`other`"),
        (
            Mood::Says(200, r#"{"pair":"users","version":5,"flag":2,"phase":"read_new","fenced":false}"#),
            "without a new",
        ),
        (Mood::Says(404, "no such page"), "it answers 404"),
        (Mood::Slow(ms(0), ms(60_000)), "no answer within"),
        (Mood::Mute, "no answer within"),
    ];
    for (mood, trouble) in moods {
        fake.feel(Mood::Well);
        let client = connected(&fake).await;
        assert!(!guard(&client).await.phase().is_read_new());
        fake.feel(mood);
        let refused = until_refused(&client).await;
        assert!(refused <= ms(5_001), "{mood:?}: {refused:?}");
        let told = client.trouble().unwrap_or_default();
        assert!(told.contains(trouble), "{mood:?}: {told}");
        assert!(is_unknown(&client.begin_write().await), "{mood:?}");
        // And never for long.
        let asked = fake.inside().asked.len();
        sleep(ms(10_000)).await;
        assert!(fake.inside().asked.len() < asked + 100, "{mood:?}: it asks without end");
        fake.feel(Mood::Well);
        sleep(ms(4_000)).await;
        assert_eq!(guard(&client).await.version(), 5, "{mood:?}");
        client.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_holds_no_question_is_not_asked_without_end() {
    let fake = Fake::new(Phase::OldOnly);
    let client = connected(&fake).await;
    fake.feel(Mood::Says(304, ""));
    let asked = fake.inside().asked.len();
    sleep(ms(2_000)).await;
    assert!(fake.inside().asked.len() - asked <= 30, "{} questions", fake.inside().asked.len() - asked);
    assert_eq!(client.version(), Ok(5));
}

#[tokio::test(start_paused = true)]
async fn a_registration_is_renewed_in_time() {
    let fake = Fake::new(Phase::OldOnly);
    let client = fake.builder().max_age(ms(1_000)).ttl(ms(1_500)).connect().await.expect("it answers");
    let asked = fake.inside().asked.len();
    for _ in 0..6_000 {
        sleep(ms(10)).await;
        assert_eq!(fake.acknowledged(), [5]);
        assert!(client.begin_write().await.is_ok());
    }
    let name = client.instance().to_owned();
    let inside = fake.inside();
    let renewal = format!("PUT /v1/flag/instances/{name} {{\"version\":5,\"ttl_ms\":1500}}");
    let renewals = inside.asked[asked..].iter().filter(|asked| **asked == renewal).count();
    assert!((100..200).contains(&renewals), "{renewals} in a minute");
}

#[tokio::test(start_paused = true)]
async fn short_and_long_ages_are_kept_up() {
    for (max_age, ttl) in [(100, 120), (250_000, 300_000)] {
        let fake = Fake::new(Phase::OldOnly);
        let client = fake.builder().max_age(ms(max_age)).ttl(ms(ttl)).connect().await.expect("it answers");
        for _ in 0..1_000 {
            sleep(ms(max_age / 50)).await;
            assert!(client.begin_write().await.is_ok(), "{max_age}");
        }
        let inside = fake.inside();
        let waits = inside.asked.iter().filter_map(|asked| asked.split_once("wait=")?.1.split_once("ms"));
        assert!(waits.clone().all(|(wait, _)| wait.parse::<u64>().is_ok_and(|wait| wait <= 60_000)), "{inside:?}");
        assert!(waits.count() > 10);
    }
}

#[tokio::test(start_paused = true)]
async fn a_question_that_is_lost_is_no_harm() {
    let fake = Fake::new(Phase::OldOnly);
    let client = connected(&fake).await;
    for _ in 0..10 {
        fake.feel(Mood::Gone);
        sleep(ms(1_000)).await;
        assert!(client.begin_write().await.is_ok());
        fake.feel(Mood::Well);
        sleep(ms(2_000)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_flag_that_goes_back_is_followed_when_it_is_registered_there() {
    let fake = Fake::new(Phase::ReadNew);
    let client = connected(&fake).await;
    let before = guard(&client).await;
    // The store was restored from a backup.
    fake.inside().instances.clear();
    fake.set(3, Phase::OldOnly, false);
    sleep(ms(300)).await;
    assert!(!before.is_still_valid());
    let after = guard(&client).await;
    assert_eq!((after.version(), after.side()), (3, Side::Old));
    assert_eq!(fake.acknowledged(), [3]);
    drop(after);
    fake.set(4, Phase::OldOnly, true);
    sleep(ms(3_000)).await;
    assert_eq!(fake.acknowledged(), [3], "the guard from before counts, whatever its number");
    drop(before);
    fake.until_acknowledged(&[4]).await;
}

#[tokio::test(start_paused = true)]
async fn a_fallback_is_for_reads_alone() {
    let fake = Fake::new(Phase::OldOnly);
    fake.feel(Mood::Gone);
    let client = fake.builder().fallback(Fallback::ReadAs(Phase::ReadNew)).start().expect("it is set up well");
    sleep(ms(1_000)).await;
    assert_eq!(client.is_read_new(), Ok(true));
    assert!(
        is_unknown(&client.begin_write().await) && is_unknown(&client.phase()) && is_unknown(&client.is_write_new())
    );
    fake.feel(Mood::Well);
    sleep(ms(3_000)).await;
    assert_eq!(client.is_read_new(), Ok(false), "what is known counts");
    assert!(client.begin_write().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn all_that_is_wrong_is_told_at_once() {
    let told = FlagClient::builder("https://flag").instance("web 1").max_age(ms(50)).ttl(ms(10)).start();
    let Err(FlagError::Setup { problems }) = told else { panic!("{told:?}") };
    assert_eq!(problems.len(), 4, "{problems:?}");
    let told = FlagClient::builder("http://flag").max_age(ms(5_000)).ttl(ms(5_500)).start();
    let Err(FlagError::Setup { problems }) = told else { panic!("{told:?}") };
    assert_eq!(problems.len(), 2, "{problems:?}");
}
