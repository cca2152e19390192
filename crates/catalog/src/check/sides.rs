//! Findings that only show when both sides are looked at together.

use crossfade_model::Side;

use super::{Finding, Severity};
use crate::ServerFacts;

/// Concurrent changes that are nearer than this are rare, and skew below it decides few of them wrongly.
const CLOCK_SKEW_LIMIT_MICROS: i64 = 500_000;

/// What the check knows of one side beside its facts.
pub(super) struct SideClock {
    /// Minutes that the server's default time zone is ahead of UTC; `None` where the server cannot tell.
    pub(super) utc_offset_minutes: Option<i64>,
}

/// `compares_times`: some table has the policy `newest`.
pub(super) fn both_sides_findings(
    (old, old_clock): (&ServerFacts, &SideClock),
    (new, new_clock): (&ServerFacts, &SideClock),
    compares_times: bool,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut add = |severity, code, subject: &str, message: String, remedy: &str| {
        findings.push(Finding::new(severity, code, None, subject, message, remedy));
    };
    if old.flavor() != new.flavor() {
        let message = format!("old is {} and new is {}: such a pair was never tested", old.version, new.version);
        add(Severity::Error, "mixed-flavors", "servers", message, "use MySQL on both sides, or MariaDB on both sides");
    }
    if old.identity == new.identity {
        let message = format!("old and new are one server, {}", old.identity);
        add(Severity::Error, "same-server", "servers", message, "correct one of the two URLs");
    } else if old.server_id == new.server_id {
        let message = format!("both sides have the `server_id` {}", old.server_id);
        let remedy =
            "SET GLOBAL server_id = <another number>;  -- on one side, before either replicates from the other";
        add(Severity::Warning, "server-id-clash", "server_id", message, remedy);
    }
    let skew = new.clock.micros.saturating_sub(old.clock.micros);
    let uncertainty = new.clock.uncertainty_micros.saturating_add(old.clock.uncertainty_micros);
    if compares_times && skew.saturating_abs().saturating_sub(uncertainty) > CLOCK_SKEW_LIMIT_MICROS {
        let message = format!(
            "new's clock is {} ms ahead of old's (± {} ms): policy `newest` decides concurrent changes wrongly",
            skew / 1_000,
            uncertainty / 1_000 + 1
        );
        add(Severity::Warning, "clock-skew", "clock", message, "synchronise both machines' clocks (NTP)");
    }
    if let (Some(a), Some(b)) = (old_clock.utc_offset_minutes, new_clock.utc_offset_minutes)
        && a != b
    {
        let message = format!(
            "the time zones differ (old: {}, {a:+} min; new: {}, {b:+} min): defaults of DATETIME columns disagree",
            zone(old),
            zone(new)
        );
        add(Severity::Warning, "time-zone", "time_zone", message, "SET GLOBAL time_zone = '+00:00';  -- on both sides");
    }
    if (old.lower_case_table_names == 0) != (new.lower_case_table_names == 0) {
        let message = format!(
            "`lower_case_table_names` is {} on old and {} on new: one side keeps upper case in names, the other does not",
            old.lower_case_table_names, new.lower_case_table_names
        );
        let remedy = "name tables with `old` and `new`, each as its side spells it";
        add(Severity::Warning, "lower-case-table-names", "lower_case_table_names", message, remedy);
    }
    for (from, to, side) in [(old, new, Side::New), (new, old, Side::Old)] {
        if to.max_allowed_packet_bytes < from.max_allowed_packet_bytes {
            let bytes = from.max_allowed_packet_bytes;
            findings.push(Finding::new(
                Severity::Warning,
                "max-allowed-packet-smaller",
                side,
                "max_allowed_packet",
                format!(
                    "`max_allowed_packet` is smaller than on {}: its largest rows will be refused",
                    side.opposite()
                ),
                format!("SET GLOBAL max_allowed_packet = {bytes};"),
            ));
        }
    }
    findings
}

fn zone(facts: &ServerFacts) -> &str {
    if facts.time_zone == "SYSTEM" { &facts.system_time_zone } else { &facts.time_zone }
}

/// Two sides that count on by the same steps from different numbers never hand out the same value.
pub(super) fn auto_increment_finding(old: &ServerFacts, new: &ServerFacts, tables: &[String]) -> Option<Finding> {
    let step = old.auto_increment_increment;
    let offsets = [old.auto_increment_offset, new.auto_increment_offset];
    let apart = step == new.auto_increment_increment && step > 1 && offsets[0] % step != offsets[1] % step;
    if apart || tables.is_empty() {
        return None;
    }
    let more = if tables.len() > 3 { format!(" and {} more", tables.len() - 3) } else { String::new() };
    let named = tables[..tables.len().min(3)].join(", ");
    Some(Finding::new(
        Severity::Warning,
        "auto-increment",
        None,
        "auto_increment_offset",
        format!("both sides hand out the same AUTO_INCREMENT values in {named}{more}"),
        "before applications write to both sides: SET GLOBAL auto_increment_increment = 2 on both, and \
         auto_increment_offset = 1 on old and 2 on new, then renew their connections",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BinlogFacts, ClockDifference, GtidMode, Version};

    fn facts(identity: &str) -> ServerFacts {
        ServerFacts {
            version: Version::parse("9.7.4").unwrap(),
            identity: identity.to_owned(),
            server_id: identity.len() as u32,
            gtid_mode: GtidMode::On,
            binlog: BinlogFacts::default(),
            flush_log_at_commit: 1,
            lower_case_table_names: 0,
            time_zone: "+00:00".to_owned(),
            system_time_zone: "UTC".to_owned(),
            max_allowed_packet_bytes: 64 << 20,
            read_only: false,
            auto_increment_increment: 1,
            auto_increment_offset: 1,
            logs_cascades: true,
            clock: ClockDifference { micros: 0, uncertainty_micros: 200 },
        }
    }

    fn codes(old: &ServerFacts, new: &ServerFacts, compares_times: bool) -> Vec<&'static str> {
        let clock = SideClock { utc_offset_minutes: Some(0) };
        let findings = both_sides_findings((old, &clock), (new, &clock), compares_times);
        findings.iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn skew_counts_only_beyond_doubt_and_only_where_times_are_compared() {
        let old = facts("old");
        let skewed = |micros, uncertainty_micros| ServerFacts {
            clock: ClockDifference { micros, uncertainty_micros },
            ..facts("newer")
        };
        let cases = [
            (600_000, 1_000, true, true),
            (-600_000, 1_000, true, true),
            (600_000, 200_000, true, false),
            (400_000, 1_000, true, false),
            (600_000, 1_000, false, false),
            (i64::MIN, i64::MAX, true, false),
        ];
        for (micros, uncertainty, compares, found) in cases {
            let codes = codes(&old, &skewed(micros, uncertainty), compares);
            assert_eq!(codes == ["clock-skew"], found, "{micros} ± {uncertainty}: {codes:?}");
        }
    }

    #[test]
    fn one_server_or_one_spelling_of_names_is_noticed() {
        let old = facts("old");
        assert_eq!(codes(&old, &old, true), ["same-server"]);
        let folded = ServerFacts { lower_case_table_names: 1, ..facts("newer") };
        assert_eq!(codes(&old, &folded, true), ["lower-case-table-names"]);
    }

    #[test]
    fn only_steps_with_different_offsets_keep_auto_increments_apart() {
        let side = |increment, offset| ServerFacts {
            auto_increment_increment: increment,
            auto_increment_offset: offset,
            ..facts("x")
        };
        let tables = ["a.b".to_owned()];
        let cases = [
            (side(1, 1), side(1, 1), true),
            (side(2, 1), side(2, 2), false),
            (side(2, 1), side(2, 3), true),
            (side(2, 1), side(3, 2), true),
            (side(10, 10), side(10, 5), false),
        ];
        for (old, new, found) in cases {
            assert_eq!(auto_increment_finding(&old, &new, &tables).is_some(), found, "{old:?} {new:?}");
            assert_eq!(auto_increment_finding(&old, &new, &[]), None);
        }
    }
}
