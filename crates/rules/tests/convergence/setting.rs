//! What one run of the checker is about: how clocks behave, what may happen, and what is broken on purpose.

use crossfade_model::Side;
use crossfade_rules::Policy;

/// What the clock column does. A tick is a quarter of a second; the `n`th user change happens at tick `20 + 2 n`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Clocks {
    /// Microseconds, always touched: no two versions of a row have the same.
    Micros,
    /// Whole seconds, so that two changes may have the same.
    Seconds,
    /// Whole seconds, which users may set back by two.
    Backwards,
    /// Whole seconds, which only an insert sets.
    Untouched,
    /// A version number, which starts again with every insert.
    Version,
    /// Microseconds, in which users write NULL.
    Null,
    /// None: the policy names the side that wins.
    Absent,
}

/// What is broken, to show that the checker notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Flaw {
    /// Whatever was captured on the target counts as concurrent.
    SeenIgnored,
    /// Changes are written without waiting for the opposite reader.
    HoldRemoved,
    /// What deletes leave behind is not kept.
    TombstonesDropped,
    /// A message that was passed counts as seen, also if it was set aside.
    ParkedTakenForSeen,
    /// What a message that was set aside has not seen is forgotten as soon as later messages have seen it.
    ForgottenTooEarly,
    /// A change is judged by its own clock.
    OwnClocks,
    /// A message that was set aside is written without judging it again.
    RetriedBlindly,
    /// Later changes of a row do not wait for the one that was set aside.
    NobodyWaits,
    /// A retry writes without the origin tag.
    Untagged,
    /// Rows with a version number are judged by sight.
    SightOfVersions,
    /// Rows without a value in the clock column are judged by sight.
    SightOfNull,
    /// What capture forgets of clocks is taken for settled.
    ClocksForgotten,
    /// The halves of a key change win or lose each by itself.
    MovesByHalves,
    /// What was lost with a key change is not undone where it was made.
    NothingGoesBack,
    /// What goes back has no other clock than a user's change would have.
    GoesBackUnmarked,
    /// Rows are judged by sight while something that went back is not captured.
    SightOfWhatWentBack,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Setting {
    pub clocks: Clocks,
    /// How far the new side's clock is ahead, in ticks.
    pub skew_ticks: i8,
    pub policy: Policy,
    pub prefer: Side,
    /// User changes on the old and on the new side.
    pub operations: [u8; 2],
    /// How often a direction may die.
    pub crashes: u8,
    /// How often the target may refuse a row for a while.
    pub bad_rows: u8,
    /// Lanes of a batch of two messages or more: some batches have one, some have so many. At most 2.
    pub lanes: u8,
    /// Users may change a row's key.
    pub moves: bool,
    /// Capture remembers the clock of the row changed last, and of no other.
    pub forgetful: bool,
    /// Users may insert again exactly what was there at first.
    pub same_again: bool,
    pub flaw: Option<Flaw>,
}

impl Setting {
    pub fn new(clocks: Clocks, operations: [u8; 2]) -> Setting {
        let policy = match clocks {
            Clocks::Version => Policy::Version,
            Clocks::Absent => Policy::PreferNew,
            _ => Policy::Newest,
        };
        Setting {
            clocks,
            skew_ticks: -5,
            policy,
            prefer: Side::New,
            operations,
            crashes: 1,
            bad_rows: 1,
            lanes: 2,
            moves: false,
            forgetful: false,
            same_again: false,
            flaw: None,
        }
    }

    pub fn with(self, flaw: Flaw) -> Setting {
        Setting { flaw: Some(flaw), ..self }
    }

    pub fn has(&self, flaw: Flaw) -> bool {
        self.flaw == Some(flaw)
    }

    /// The clock of the row that both sides have at first.
    pub fn first_clock(&self) -> u8 {
        match self.clocks {
            Clocks::Version | Clocks::Null | Clocks::Absent => 0,
            _ => 8,
        }
    }

    /// What a side's clock says at the `n`th change, in ticks.
    pub fn local_ticks(&self, side: usize, n: usize) -> u8 {
        let skew = if side == 1 { self.skew_ticks } else { 0 };
        (20 + 2 * n as u8).saturating_add_signed(skew)
    }

    /// The values that a user may give the clock column; `before` is the row that he changes.
    pub fn clock_choices(&self, local_ticks: u8, before: Option<u8>) -> Vec<u8> {
        let second = local_ticks - local_ticks % 4;
        match self.clocks {
            Clocks::Micros => vec![local_ticks],
            Clocks::Seconds => vec![second],
            Clocks::Backwards => vec![second, second - 8],
            Clocks::Untouched => vec![before.unwrap_or(second)],
            Clocks::Version => vec![before.map_or(0, |version| version + 1)],
            Clocks::Null | Clocks::Absent => vec![0],
        }
    }
}
