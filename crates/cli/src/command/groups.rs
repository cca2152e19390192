//! Groups of tables that change sides separately: those of the configuration, and those that the store knows.

use crossfade_config::Settings;
use crossfade_control::gate::group::{self, Crossing};
use crossfade_control::{Change, Gate};
use crossfade_message::Store;
use crossfade_model::Side;

use crate::failure::{Failure, Kind};

/// Somebody has named one.
pub fn refuse_unknown(settings: &Settings, group: Option<&str>) -> Result<(), Failure> {
    let groups = settings.groups();
    match group {
        Some(group) if !groups.contains(group) => {
            let known = groups.into_iter().collect::<Vec<_>>().join(", ");
            let hint = match known.is_empty() {
                true => "the configuration has none: `group = \"…\"` below `[[table]]` puts tables into one".to_owned(),
                false => format!("groups: {known}"),
            };
            Err(Failure::new(Kind::Usage, format!("there is no group `{group}`"), hint))
        }
        _ => Ok(()),
    }
}

/// Makes the groups of the configuration known, unless it lacks one whose users follow a flag of their own: they would be told
/// another one.
pub async fn know(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    let forgotten = store.forgotten_groups(&settings.groups()).await?;
    if let Some(Gate { why, remedy, .. }) = group::known(&forgotten) {
        return Err(Failure::new(Kind::Usage, why, remedy.unwrap_or_default()).into());
    }
    store.know_groups(&settings.groups()).await?;
    Ok(())
}

/// Looks at the gates that groups have.
pub async fn gates(
    settings: &Settings,
    store: &Store,
    change: Change,
    crossings: &Result<Vec<Crossing>, String>,
) -> anyhow::Result<Vec<Gate>> {
    let names = settings.groups();
    let mut gates: Vec<Gate> = group::known(&store.forgotten_groups(&names).await?).into_iter().collect();
    if names.is_empty() {
        return Ok(gates);
    }
    let mut groups = Vec::new();
    for name in names {
        groups.push((name.to_owned(), store.of_group(Some(name)).flag().await?.phase));
    }
    let fence = settings.cutover.fence;
    match change {
        Change::Open => {}
        Change::Cutover | Change::Rollback => {
            gates.push(group::references(store.group(), crossings));
            gates.extend(match (store.group(), change.fences()) {
                (Some(name), _) => Some(group::fence(name, fence)),
                (None, side) => side.and_then(|side| group::fence_of_rest(side, &groups, fence)),
            });
        }
        Change::Finish => gates.push(group::sides(Side::New, &groups)),
        Change::Close | Change::Abort => gates.push(group::sides(Side::Old, &groups)),
    }
    Ok(gates)
}
