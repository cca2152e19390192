//! How a stream's process is, as it says itself: the one list of states, for `status` and for whoever asks whether a
//! process is ready.

/// A state, with what each guarantees. The process that holds the direction's lease sets it and keeps it in the store,
/// with the time since when; [`Standby`](Health::Standby) alone is of a process that holds no lease.
///
/// Reasons are for people: what is the matter, and what ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Declared off: nothing is captured, and nobody waits for it.
    Off { reason: String },
    /// Another process holds the lease. This one has all that it needs to take over, and writes nothing.
    Standby { reason: String },
    /// Reads and applies, but users of the source should wait: the other direction does not yet look for their changes.
    Starting { reason: String },
    /// Everything that the source had a few seconds ago is applied, or is under way.
    Running,
    /// Reads and applies without trouble, and is behind. With a reason where reading rests meanwhile.
    CatchingUp { reason: Option<String> },
    /// Nothing is wrong here, but something waits for the other direction's process.
    Held { reason: String },
    /// A server is away or refuses, for a reason that passes by itself. Said from the first failure until the same has
    /// succeeded, also while it is tried again.
    Retrying { reason: String },
    /// A person wishes that nothing is applied. Capture goes on.
    Paused { reason: String },
    /// Nothing is applied until a person acts, or no process runs. Where a process runs, capture goes on. Without a
    /// reason: it was asked to end, and ended well.
    Stopped { reason: Option<String> },
    /// What a newer program says and this one does not know.
    Foreign { state: String, reason: Option<String> },
}

impl Health {
    /// The state's word, as the store keeps it and `status` shows it.
    pub fn word(&self) -> &str {
        match self {
            Health::Off { .. } => "off",
            Health::Standby { .. } => "standby",
            Health::Starting { .. } => "starting",
            Health::Running => "running",
            Health::CatchingUp { .. } => "catching-up",
            Health::Held { .. } => "held",
            Health::Retrying { .. } => "retrying",
            Health::Paused { .. } => "paused",
            Health::Stopped { .. } => "stopped",
            Health::Foreign { state, .. } => state,
        }
    }

    pub fn reason(&self) -> Option<&str> {
        match self {
            Health::Running => None,
            Health::CatchingUp { reason } | Health::Stopped { reason } | Health::Foreign { reason, .. } => {
                reason.as_deref()
            }
            Health::Off { reason }
            | Health::Standby { reason }
            | Health::Starting { reason }
            | Health::Held { reason }
            | Health::Retrying { reason }
            | Health::Paused { reason } => Some(reason),
        }
    }

    /// Reads what [`word`](Self::word) and [`reason`](Self::reason) say.
    pub fn of(word: &str, reason: Option<String>) -> Health {
        let why = || reason.clone().unwrap_or_default();
        match word {
            "off" => Health::Off { reason: why() },
            "standby" => Health::Standby { reason: why() },
            "starting" => Health::Starting { reason: why() },
            "running" => Health::Running,
            "catching-up" => Health::CatchingUp { reason },
            "held" => Health::Held { reason: why() },
            "retrying" => Health::Retrying { reason: why() },
            "paused" => Health::Paused { reason: why() },
            "stopped" => Health::Stopped { reason },
            _ => Health::Foreign { state: word.to_owned(), reason },
        }
    }

    /// Nothing is the matter, and nothing is waited for. What is retried or not known is never green.
    pub fn is_green(&self) -> bool {
        matches!(self, Health::Running | Health::CatchingUp { .. })
    }

    /// An error has stopped it, and only a person, or what a person mends, lets it go on.
    pub fn has_failed(&self) -> bool {
        matches!(self, Health::Stopped { reason: Some(_) })
    }
}

#[cfg(test)]
mod tests {
    use super::Health;

    #[test]
    fn what_is_written_is_read_again() {
        let reason = || "why".to_owned();
        let all = [
            Health::Off { reason: reason() },
            Health::Standby { reason: reason() },
            Health::Starting { reason: reason() },
            Health::Running,
            Health::CatchingUp { reason: None },
            Health::CatchingUp { reason: Some(reason()) },
            Health::Held { reason: reason() },
            Health::Retrying { reason: reason() },
            Health::Paused { reason: reason() },
            Health::Stopped { reason: Some(reason()) },
            Health::Stopped { reason: None },
            Health::Foreign { state: "resharding".to_owned(), reason: None },
        ];
        for health in all {
            assert_eq!(Health::of(health.word(), health.reason().map(str::to_owned)), health);
            assert_eq!(health.is_green(), matches!(health.word(), "running" | "catching-up"));
        }
    }
}
