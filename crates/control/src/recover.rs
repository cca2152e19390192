//! The end of a change that was begun: by its own tool, by another one after its death, or, as far as users must not be kept
//! waiting, by the sync processes.

use crossfade_applier::Probe;
use crossfade_config::Settings;
use crossfade_message::{Flag, Held, Store, SwitchRun, SwitchState, Wish};
use crossfade_model::{Direction, Phase};

use crate::hold::{IsDead, TTL};
use crate::memory::{Memory, change_of, name};
use crate::mirror::{mirror, mirror_all, mirror_both};
use crate::refuse::{Refused, take_writes};
use crate::{Change, ControlError, Step};

/// Where a change has come to rest.
pub(crate) struct Settled {
    pub change: Change,
    pub state: SwitchState,
    pub flag: Flag,
    pub memory: Memory,
}

/// Brings a run that the holder has in hand to its end: forward where the flag has changed, else back. Repeatable.
pub(crate) async fn settle(
    settings: &Settings,
    store: &Store,
    run: &SwitchRun,
    holder: &str,
    reason: Option<String>,
    probe: &Probe,
) -> Result<Settled, ControlError> {
    let kept = kept(store, run).await?;
    let (change, mut memory) = (change_of(&kept)?, Memory::of(&kept)?);
    let store = &store.of_group(memory.group.as_deref());
    if change.is_end() {
        return undo_end(settings, store, (&kept, holder), (change, memory), reason).await;
    }
    let (state, flag) = decide(store, &memory, change).await?;
    if state == SwitchState::Undone {
        memory.reason = reason;
        restore_wishes(store, &kept, holder, &memory).await?;
    }
    // Written again below, where a side that refuses writes does not take it.
    let mirrored = if memory.fenced_from.is_some() { mirror_both(settings, store, &flag).await } else { Ok(()) };
    if memory.refuses.is_some() {
        keep(store, &kept, holder, &memory).await?;
        probe(Step::Release.failpoint());
    }
    release(settings, &mut memory).await?;
    if mirrored.is_err()
        && let Err(error) = mirror_both(settings, store, &flag).await
    {
        // The sync processes do it as soon as they can.
        tracing::warn!(error = %error, "a side has not been told of the flag yet");
    }
    probe("switch-end");
    end(store, &kept, holder, (state, &memory, &flag)).await?;
    Ok(Settled { change, state, flag, memory })
}

/// An end that its own command does not go on with: all is as before again. Repeatable.
async fn undo_end(
    settings: &Settings,
    store: &Store,
    (run, holder): (&SwitchRun, &str),
    (change, mut memory): (Change, Memory),
    reason: Option<String>,
) -> Result<Settled, ControlError> {
    if is_leaving(run) {
        let text = format!("{} has begun to remove what is on old: run `crossfade abort` again to end it", name(run));
        return Err(ControlError::Refused(text));
    }
    memory.reason = reason;
    let before = memory.begun_in.unwrap_or(change.from());
    let flag = loop {
        let flag = store.flag().await?;
        let from = memory.flipped_from;
        // The flip may still come where the version is that of before.
        if !from.is_some_and(|from| flag.version == from || (flag.version == from + 1 && flag.phase == change.to())) {
            break flag;
        }
        if let Some(back) = store.change_flag(flag.version, before, None).await? {
            break back;
        }
    };
    restore_wishes(store, run, holder, &memory).await?;
    if memory.flipped_from.is_some()
        && let Err(error) = mirror_all(settings, store, &flag).await
    {
        tracing::warn!(error = %error, "a side has not been told of the flag yet");
    }
    end(store, run, holder, (SwitchState::Undone, &memory, &flag)).await?;
    Ok(Settled { change, state: SwitchState::Undone, flag, memory })
}

/// From then on nothing leads back.
pub(crate) fn is_leaving(run: &SwitchRun) -> bool {
    [Step::Leave, Step::Remove].iter().any(|step| run.step == step.as_str())
}

/// Directions do again what was wished of them before, unless somebody has wished something else since.
async fn restore_wishes(store: &Store, run: &SwitchRun, holder: &str, memory: &Memory) -> Result<(), ControlError> {
    for direction in [Direction::Forward, Direction::Reverse] {
        let Some(before) = memory.wishes.of(direction) else { continue };
        let now = store.wish(direction).await?.unwrap_or(Wish::OFF);
        // A change wishes nothing but these two.
        if now == before || !(now == Wish::RUN || now == Wish::OFF) {
            continue;
        }
        if !store.set_wish_of_run(run.id, holder, direction, before).await? {
            return Err(ControlError::TakenOver { run: name(run) });
        }
        store.journal("wish", &format!("{direction} does again what it did before {}", name(run))).await?;
    }
    Ok(())
}

/// As the store has it now.
async fn kept(store: &Store, run: &SwitchRun) -> Result<SwitchRun, ControlError> {
    let open = store.open_switch_run().await?.map(|(open, _)| open).filter(|open| open.id == run.id);
    open.ok_or_else(|| ControlError::TakenOver { run: name(run) })
}

/// Lets users write: on the other side where the flag has changed, else as before. Whatever is still on its way to the store with
/// the flag's version of before then finds another one, and does not happen.
async fn decide(store: &Store, memory: &Memory, change: Change) -> Result<(SwitchState, Flag), ControlError> {
    loop {
        let flag = store.flag().await?;
        if has_flipped(memory, &flag, change.to()) {
            return Ok((SwitchState::Done, flag));
        }
        if !is_to_be_passed(memory, &flag) {
            return Ok((SwitchState::Undone, flag));
        }
        if store.change_flag(flag.version, change.from(), None).await?.is_some() {
            // Of a group it may be the pair's phase that is told.
            return Ok((SwitchState::Undone, store.flag().await?));
        }
    }
}

/// The fence was followed by another version, and that one is the flip: nothing else leads to the phase.
fn has_flipped(memory: &Memory, flag: &Flag, to: Phase) -> bool {
    memory.fence().is_some_and(|fence| flag.version > fence) && flag.phase == to
}

/// The flag's version is that of the fence, or the one before, upon which the fence may still come; or a group's fence stands, whose
/// version was raised by a change of the pair's flag.
fn is_to_be_passed(memory: &Memory, flag: &Flag) -> bool {
    memory
        .fenced_from
        .is_some_and(|from| flag.version == from || flag.version == from + 1 || (memory.group.is_some() && flag.fenced))
}

async fn release(settings: &Settings, memory: &mut Memory) -> Result<(), ControlError> {
    if let Some(side) = memory.refuses {
        take_writes(settings, side, Refused::of(&memory.refused_accounts())).await?;
        (memory.refuses, memory.accounts) = (None, Vec::new());
    }
    Ok(())
}

async fn keep(store: &Store, run: &SwitchRun, holder: &str, memory: &Memory) -> Result<(), ControlError> {
    let kept = store.keep_switch_step(run.id, holder, TTL, Step::Release.as_str(), &memory.to_json()).await?;
    if kept { Ok(()) } else { Err(ControlError::TakenOver { run: name(run) }) }
}

pub(crate) async fn end(
    store: &Store,
    run: &SwitchRun,
    holder: &str,
    (state, memory, flag): (SwitchState, &Memory, &Flag),
) -> Result<(), ControlError> {
    let step = if state == SwitchState::Done { "done" } else { "undone" };
    if !store.keep_switch_step(run.id, holder, TTL, step, &memory.to_json()).await? {
        return Err(ControlError::TakenOver { run: name(run) });
    }
    let (change, phase, version) = (name(run), flag.phase, flag.version);
    let text = match (state, &memory.reason) {
        (SwitchState::Undone, reason) => {
            let reason = reason.as_deref().unwrap_or("it was not finished");
            format!("{change} was undone: {reason}")
        }
        (_, _) if run.kind == Change::Finish.as_str() => {
            format!("{change}: the migration has ended, the phase is {phase} (flag version {version})")
        }
        (_, _) if run.kind == Change::Abort.as_str() => {
            format!("{change}: the migration was left, and old is as before it (flag version {version})")
        }
        _ => {
            let pause = memory.pause_ms.map_or("a time that nobody measured".to_owned(), |ms| format!("{ms} ms"));
            format!("{change}: the phase is {phase} (flag version {version}); users wrote nowhere for {pause}")
        }
    };
    store.journal(&run.kind, &text).await?;
    if !store.end_switch_run(run.id, holder, state).await? {
        return Err(ControlError::TakenOver { run: name(run) });
    }
    Ok(())
}

/// For the sync processes: a side that refuses writes for a change whose tool has died takes them again, once users may write by
/// the flag. The rest is left to whoever goes on with it. Gives what was done.
pub async fn release_abandoned(
    settings: &Settings,
    store: &Store,
    holder: &str,
    is_dead: IsDead,
) -> Result<Option<String>, ControlError> {
    let Some((run, held_by)) = store.open_switch_run().await? else { return Ok(None) };
    let memory = Memory::of(&run)?;
    let store = &store.of_group(memory.group.as_deref());
    if held_by.as_ref().is_some_and(|holder| !is_dead(holder)) || memory.refuses.is_none() || store.flag().await?.fenced
    {
        return Ok(None);
    }
    if let Some(dead) = held_by {
        store.renew_switch_run(run.id, &dead, std::time::Duration::ZERO).await?;
    }
    let Held::Mine(run) = store.hold_switch_run(&run.kind, holder, TTL).await? else { return Ok(None) };
    let mut memory = Memory::of(&run)?;
    let Some(side) = memory.refuses else { return Ok(None) };
    release(settings, &mut memory).await?;
    keep(store, &run, holder, &memory).await?;
    let told = format!("the tool of {} has died; {side} takes writes again", name(&run));
    store.journal(&run.kind, &told).await?;
    // Nobody is to wait for this process.
    store.renew_switch_run(run.id, holder, std::time::Duration::ZERO).await?;
    mirror(settings, store, side, &store.flag().await?).await?;
    Ok(Some(told))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flag(version: u64, phase: Phase) -> Flag {
        Flag { version, phase, fenced: false }
    }

    #[test]
    fn only_a_later_version_with_the_phase_is_the_flip() {
        let memory = Memory { fenced_from: Some(4), ..Memory::default() };
        assert!(has_flipped(&memory, &flag(6, Phase::ReadNew), Phase::ReadNew));
        assert!(!has_flipped(&memory, &flag(6, Phase::WriteBoth), Phase::ReadNew), "the fence was lifted");
        assert!(!has_flipped(&memory, &flag(5, Phase::WriteBoth), Phase::ReadNew), "it still holds");
        assert!(!has_flipped(&Memory::default(), &flag(6, Phase::ReadNew), Phase::ReadNew), "it never came to a fence");
    }

    #[test]
    fn a_fence_is_passed_also_where_it_may_still_come() {
        let memory = Memory { fenced_from: Some(4), ..Memory::default() };
        let passed: Vec<u64> =
            (3..8).filter(|version| is_to_be_passed(&memory, &flag(*version, Phase::WriteBoth))).collect();
        assert_eq!(passed, [4, 5]);
        assert!(!is_to_be_passed(&Memory::default(), &flag(0, Phase::OldOnly)));
    }
}
