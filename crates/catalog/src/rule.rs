//! From the configuration's words to those of the rules.

use crossfade_config::{EntityReach, Policy, SelectedTable, Settings};
use crossfade_rules::{EntityRule, Reach, TableRule};

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

/// The rules of the tables that hang on an entity; none where nothing moves by itself.
pub fn entity_rules(settings: &Settings) -> Vec<EntityRule> {
    let tables = settings.entity.iter().flat_map(|entity| &entity.tables);
    let rule = |table: &crossfade_config::EntityTable| EntityRule {
        table: table.old.clone(),
        reach: match &table.reach {
            EntityReach::Key(column) => Reach::Key(column.clone()),
            EntityReach::Through { parent, via } => Reach::Through { parent: parent.clone(), via: via.clone() },
        },
        allow_on_old: table.allow_on_old.clone(),
    };
    tables.map(rule).collect()
}
