//! From the configuration's words to those of the rules.

use crossfade_config::{Policy, SelectedTable};
use crossfade_rules::TableRule;

/// The rule of a selected table.
pub fn table_rule(table: &SelectedTable) -> TableRule {
    TableRule {
        old: table.old.clone(),
        new: table.new.clone(),
        clock: table.settings.clock.clone(),
        policy: match table.settings.policy {
            Policy::Newest => crossfade_rules::Policy::Newest,
            Policy::Version => crossfade_rules::Policy::Version,
            Policy::PreferOld => crossfade_rules::Policy::PreferOld,
            Policy::PreferNew => crossfade_rules::Policy::PreferNew,
        },
        renamed: table.settings.columns.clone(),
        one_way: table.settings.one_way,
        merge: table.settings.merge.clone(),
    }
}
