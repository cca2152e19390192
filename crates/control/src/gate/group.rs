//! What must hold where groups of tables change sides one after the other.

use crossfade_config::Fence;
use crossfade_model::{Phase, Side, TableName};

use super::Gate;

/// A reference between tables that do not change sides together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Crossing {
    pub child: TableName,
    pub parent: TableName,
    /// `None`: in no group.
    pub child_group: Option<String>,
    pub parent_group: Option<String>,
}

impl Crossing {
    fn touches(&self, group: Option<&str>) -> bool {
        self.child_group.as_deref() == group || self.parent_group.as_deref() == group
    }
}

/// Rows that refer to each other are written on the same side: no reference leads out of the group, nor into it.
pub fn references(group: Option<&str>, crossings: &Result<Vec<Crossing>, String>) -> Gate {
    const NAME: &str = "references between groups";
    let crossings = match crossings {
        Ok(crossings) => crossings,
        Err(why) => return Gate::unknown(NAME, why.clone(), "see that both sides can be reached, and run it again"),
    };
    let touching: Vec<String> = crossings.iter().filter(|crossing| crossing.touches(group)).map(shown).collect();
    if touching.is_empty() {
        return Gate::open(NAME, format!("{} refers to no table outside of it, and none to it", of_tables(group)));
    }
    Gate::closed(
        NAME,
        format!("{} has foreign keys to others, or they to it: {}", of_tables(group), touching.join(", ")),
        "give tables that refer to each other the same `group` in the configuration",
    )
}

/// Groups that were moved, or that somebody follows, and that the configuration does not name.
pub fn known(forgotten: &[String]) -> Option<Gate> {
    let first = forgotten.first()?;
    let why =
        format!("the configuration does not name {}, whose users follow a flag of their own", forgotten.join(", "));
    let remedy = "one that was ever moved stays named until the migration ends";
    Some(Gate::closed("known groups", why, format!("name it again (`group = \"{first}\"`); {remedy}")))
}

/// What keeps everybody from writing on a side is not for where groups stay there.
pub fn fence_of_rest(side: Side, groups: &[(String, Phase)], fence: Fence) -> Option<Gate> {
    let staying = groups.iter().filter(|(_, phase)| phase.writes_to() == side);
    let staying: Vec<&str> = staying.map(|(group, _)| group.as_str()).collect();
    if fence == Fence::Flag || staying.is_empty() {
        return None;
    }
    let why = format!(
        "`[cutover] fence = \"{}\"` would keep users of {} from writing, too",
        fence.as_str(),
        staying.join(", ")
    );
    Some(Gate::closed("fence of a group", why, "with groups, users change sides with `fence = \"flag\"`"))
}

/// The side that users leave goes on being written by those of other groups.
pub fn fence(group: &str, fence: Fence) -> Gate {
    const NAME: &str = "fence of a group";
    if fence == Fence::Flag {
        return Gate::open(NAME, format!("users of {group} alone are kept from writing, by their flag"));
    }
    Gate::closed(
        NAME,
        format!("`[cutover] fence = \"{}\"` would keep users of other groups from writing, too", fence.as_str()),
        "a group changes sides with `fence = \"flag\"`",
    )
}

/// What changes the phase of all is for when every group is on the side that it leaves users on.
pub fn sides(side: Side, groups: &[(String, Phase)]) -> Gate {
    const NAME: &str = "sides of groups";
    let elsewhere = groups.iter().filter(|(_, phase)| phase.writes_to() != side);
    let elsewhere: Vec<&str> = elsewhere.map(|(group, _)| group.as_str()).collect();
    if elsewhere.is_empty() {
        return Gate::open(NAME, format!("users of every group are on {side}"));
    }
    let command = if side == Side::New { "cutover" } else { "rollback" };
    let commands: Vec<String> =
        elsewhere.iter().map(|group| format!("`crossfade {command} --group {group}`")).collect();
    Gate::closed(
        NAME,
        format!("users of {} are on {}", elsewhere.join(", "), side.opposite()),
        format!("run {}", commands.join(", ")),
    )
}

fn shown(crossing: &Crossing) -> String {
    let group =
        |group: &Option<String>| group.as_deref().map_or("in no group".to_owned(), |group| format!("of {group}"));
    let Crossing { child, parent, child_group, parent_group } = crossing;
    format!("{child} ({}) refers to {parent} ({})", group(child_group), group(parent_group))
}

fn of_tables(group: Option<&str>) -> String {
    group.map_or("what is in no group".to_owned(), |group| format!("group {group}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crossing(child: Option<&str>, parent: Option<&str>) -> Crossing {
        let (child_group, parent_group) = (child.map(str::to_owned), parent.map(str::to_owned));
        Crossing { child: TableName::new("s", "c"), parent: TableName::new("s", "p"), child_group, parent_group }
    }

    #[test]
    fn a_reference_out_of_a_group_or_into_it_keeps_it_where_it_is() {
        let crossings = Ok(vec![crossing(Some("a"), Some("b")), crossing(None, Some("b"))]);
        for (group, is_open) in [(Some("a"), false), (Some("b"), false), (None, false), (Some("c"), true)] {
            let gate = references(group, &crossings);
            assert_eq!(gate.is_open(), is_open, "{gate:?}");
            assert_eq!(gate.remedy.is_none(), is_open);
        }
        assert!(references(None, &Ok(Vec::new())).is_open());
        assert!(!references(None, &Err("away".to_owned())).is_open());
    }

    #[test]
    fn an_end_waits_for_every_group() {
        let groups = [("a".to_owned(), Phase::ReadNew), ("b".to_owned(), Phase::WriteBoth)];
        assert!(sides(Side::New, &groups[..1]).is_open() && sides(Side::Old, &groups[1..]).is_open());
        let gate = sides(Side::New, &groups);
        assert_eq!(gate.remedy.as_deref(), Some("run `crossfade cutover --group b`"));
        let gate = sides(Side::Old, &groups);
        assert_eq!(gate.remedy.as_deref(), Some("run `crossfade rollback --group a`"));
    }

    #[test]
    fn what_keeps_everybody_from_writing_is_for_no_group() {
        for configured in Fence::ALL {
            assert_eq!(fence("a", configured).is_open(), configured == Fence::Flag);
            let groups = [("a".to_owned(), Phase::WriteBoth)];
            assert_eq!(fence_of_rest(Side::Old, &groups, configured).is_none(), configured == Fence::Flag);
            assert_eq!(fence_of_rest(Side::New, &groups, configured), None, "nobody stays there");
        }
    }
}
