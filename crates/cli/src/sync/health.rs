//! From what is seen of a process's parts to the state that it reports.

use crossfade_applier::Waiting;
use crossfade_message::Health;
use crossfade_model::Direction;

/// What is seen of a process that holds its direction's lease and runs.
#[derive(Debug, Clone)]
pub struct Signs {
    pub direction: Direction,
    /// What is wished of it.
    pub captures: bool,
    pub applies: bool,
    /// Why crossfade itself has wished it to rest, if it has.
    pub stop_reason: Option<String>,
    /// What it wrote was not recognised on the other side when that was looked for last.
    pub tag_was_lost: bool,
    /// Why the source cannot be read at the moment.
    pub reader_trouble: Option<String>,
    /// Why the store takes nothing until a person has mended it.
    pub store_trouble: Option<String>,
    pub waiting: Option<Waiting>,
    /// Changes that wait for the opposite reader while others go on.
    pub held: usize,
    /// The opposite process looks for changes by users of this one's source.
    pub opposite_knows: bool,
    /// Changes have waited for longer than some seconds.
    pub is_behind: bool,
    /// Why reading rests, if it does.
    pub resting: Option<String>,
}

impl Signs {
    /// The one place where a state is decided. What a person wished goes first, then what needs a person, then what passes
    /// by itself; only where nothing is left is it green.
    pub fn health(mut self) -> Health {
        let Some(rests) = self.resting.take() else { return self.state() };
        // Told beside whatever else keeps the direction from going on.
        let beside = |reason: String| format!("{reason}; {rests}");
        match self.state() {
            Health::Running | Health::CatchingUp { .. } => Health::CatchingUp { reason: Some(rests) },
            Health::Starting { reason } => Health::Starting { reason: beside(reason) },
            Health::Held { reason } => Health::Held { reason: beside(reason) },
            Health::Retrying { reason } => Health::Retrying { reason: beside(reason) },
            Health::Paused { reason } => Health::Paused { reason: beside(reason) },
            Health::Stopped { reason: Some(reason) } => Health::Stopped { reason: Some(beside(reason)) },
            other => other,
        }
    }

    fn state(self) -> Health {
        let (direction, opposite) = (self.direction, self.direction.opposite());
        let (source, target) = (direction.source(), direction.target());
        if !self.captures {
            let reason = format!("declared off by `stop --capture`; `crossfade start {direction}` ends that");
            return Health::Off { reason };
        }
        if !self.applies {
            let source = self.reader_trouble.map(|trouble| format!("; its source: {trouble}"));
            let store = self.store_trouble.map(|trouble| format!("; nothing is captured: {trouble}"));
            let reading = [source, store].into_iter().flatten().collect::<String>();
            return match self.stop_reason {
                Some(reason) => Health::Stopped { reason: Some(format!("{reason}{reading}")) },
                None => Health::Paused {
                    reason: format!(
                        "applying rests since `crossfade stop`; `crossfade start {direction}` lets it go on{reading}"
                    ),
                },
            };
        }
        if let Some(trouble) = self.store_trouble {
            return Health::Stopped { reason: Some(format!("nothing is captured: {trouble}")) };
        }
        match (self.waiting, self.reader_trouble) {
            (Some(Waiting::Stopped(reason)), _) => Health::Stopped { reason: Some(reason) },
            (Some(Waiting::Retry(reason)), None) | (_, Some(reason)) => Health::Retrying { reason },
            _ if self.tag_was_lost => Health::Held {
                reason: format!(
                    "what it wrote was not recognised on the {target} side; applying waits until a canary is"
                ),
            },
            (Some(Waiting::Throttle(reason)), None) => Health::CatchingUp { reason: Some(reason) },
            (Some(Waiting::OppositeReader), None) => Health::Held {
                reason: format!("waits until the {opposite} process has read what users wrote to the {target} side"),
            },
            _ if !self.opposite_knows => Health::Starting {
                reason: format!(
                    "users of the {source} side should wait: the {opposite} process does not yet look for their changes"
                ),
            },
            _ if self.held > 0 => Health::Held {
                reason: format!(
                    "{} wait until the {opposite} process has read what users wrote to the {target} side; all others go on",
                    if self.held == 1 { "a change must".to_owned() } else { format!("{} changes", self.held) }
                ),
            },
            _ if self.is_behind => Health::CatchingUp { reason: None },
            _ => Health::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Signs {
        Signs {
            direction: Direction::Forward,
            captures: true,
            applies: true,
            stop_reason: None,
            tag_was_lost: false,
            reader_trouble: None,
            store_trouble: None,
            waiting: None,
            held: 0,
            opposite_knows: true,
            is_behind: false,
            resting: None,
        }
    }

    fn why() -> String {
        "connection refused".to_owned()
    }

    #[test]
    fn p7_nothing_is_green_while_anything_is_retried_or_stopped() {
        assert_eq!(well().health(), Health::Running);
        assert_eq!(Signs { is_behind: true, ..well() }.health(), Health::CatchingUp { reason: None });
        assert_eq!(Signs { held: 1, ..well() }.health().word(), "held");
        for waiting in [None, Some(Waiting::OppositeReader), Some(Waiting::Retry(why())), Some(Waiting::Stopped(why()))]
        {
            for reader_trouble in [None, Some(why())] {
                for (opposite_knows, is_behind, tag_was_lost) in
                    [(true, false, false), (false, true, false), (true, true, true)]
                {
                    let signs = Signs {
                        waiting: waiting.clone(),
                        reader_trouble: reader_trouble.clone(),
                        opposite_knows,
                        is_behind,
                        tag_was_lost,
                        ..well()
                    };
                    let troubled = waiting.is_some() || reader_trouble.is_some() || !opposite_knows || tag_was_lost;
                    assert_eq!(signs.clone().health().is_green(), !troubled, "{signs:?}");
                }
            }
        }
    }

    #[test]
    fn the_weightier_state_is_told() {
        let retrying = Health::Retrying { reason: why() };
        let waits = |waiting| Signs { waiting: Some(waiting), ..well() };
        assert_eq!(waits(Waiting::Retry(why())).health(), retrying);
        assert_eq!(Signs { reader_trouble: Some(why()), ..waits(Waiting::OppositeReader) }.health(), retrying);
        assert_eq!(waits(Waiting::OppositeReader).health().word(), "held");
        let stopped = Signs { reader_trouble: Some(why()), ..waits(Waiting::Stopped("no table".to_owned())) };
        assert_eq!(stopped.health(), Health::Stopped { reason: Some("no table".to_owned()) });
        let full = Signs { store_trouble: Some("disk full".to_owned()), ..waits(Waiting::Retry(why())) };
        assert_eq!(full.health(), Health::Stopped { reason: Some("nothing is captured: disk full".to_owned()) });
        let paused = Signs { store_trouble: Some("disk full".to_owned()), applies: false, ..well() }.health();
        assert!(paused.word() == "paused" && paused.reason().is_some_and(|reason| reason.contains("disk full")));
    }

    #[test]
    fn p8_that_reading_rests_is_told_beside_all_else() {
        let rests = || Some("reading rests".to_owned());
        let resting = Signs { resting: rests(), ..well() };
        assert_eq!(resting.clone().health(), Health::CatchingUp { reason: rests() });
        let retrying = Signs { waiting: Some(Waiting::Retry(why())), ..resting.clone() };
        assert_eq!(retrying.health(), Health::Retrying { reason: "connection refused; reading rests".to_owned() });
        assert_eq!(Signs { captures: false, ..resting }.health().word(), "off");
    }

    #[test]
    fn a_person_who_pauses_is_told_apart_from_a_breaker_that_stops() {
        let rests = Signs { applies: false, ..well() };
        assert_eq!(rests.clone().health().word(), "paused");
        let stopped = Signs { stop_reason: Some("a row goes round".to_owned()), ..rests.clone() };
        assert_eq!(stopped.health(), Health::Stopped { reason: Some("a row goes round".to_owned()) });
        assert_eq!(Signs { captures: false, ..rests }.health().word(), "off");
    }
}
