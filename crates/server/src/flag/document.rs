//! The shapes in which the flag is told.

use crossfade_message::{Flag, FlagInstance};
use serde::Serialize;

/// The flag, with what it means.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FlagDocument {
    pub pair: String,
    pub version: u64,
    /// 0 to 3.
    pub flag: u8,
    pub phase: &'static str,
    /// Users write nowhere for a moment.
    pub fenced: bool,
    pub is_read_new: bool,
    pub is_write_old: bool,
    pub is_write_new: bool,
    /// The side that an application writes that leaves the other one to crossfade; none while it is fenced.
    pub writes_to: Option<&'static str>,
}

impl FlagDocument {
    pub fn of(pair: &str, flag: Flag) -> FlagDocument {
        let Flag { version, phase, fenced } = flag;
        FlagDocument {
            pair: pair.to_owned(),
            version,
            flag: phase.flag(),
            phase: phase.as_str(),
            fenced,
            is_read_new: phase.is_read_new(),
            is_write_old: phase.is_write_old(),
            is_write_new: phase.is_write_new(),
            writes_to: (!fenced).then(|| phase.writes_to().as_str()),
        }
    }
}

/// An instance of an application that follows the flag.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InstanceLine {
    pub instance: String,
    /// It writes by this version or later ones.
    pub version: u64,
    /// Until it is not waited for any more, if it is not heard again.
    pub expires_in_ms: u64,
}

impl From<&FlagInstance> for InstanceLine {
    fn from(instance: &FlagInstance) -> InstanceLine {
        InstanceLine {
            instance: instance.instance.clone(),
            version: instance.version,
            expires_in_ms: instance.expires_in_ms,
        }
    }
}
