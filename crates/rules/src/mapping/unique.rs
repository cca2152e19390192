//! The key that identifies a row on both sides, and the target's other unique keys.

use crossfade_model::{Direction, Side, TableShape};

#[derive(Debug, Default)]
pub(super) struct MappedKeys {
    /// Empty when no key identifies a row on both sides.
    pub row_key: Vec<usize>,
    pub unique_keys: Vec<Vec<usize>>,
    /// Names of the target's unique keys that cannot be told from the carried columns.
    pub opaque: Vec<String>,
}

/// Finds the keys of a mapping. Beside each definition stand the places of the carried columns in it.
pub(super) fn mapped_keys(
    (old, old_places): (&TableShape, &[usize]),
    (new, new_places): (&TableShape, &[usize]),
    direction: Direction,
) -> MappedKeys {
    // The old side's order of keys decides in both directions, so that both choose the same key.
    let new_keys = row_keys(new, new_places);
    let row_key =
        row_keys(old, old_places).into_iter().find(|key| new_keys.iter().any(|other| same_columns(key, other)));
    let mut keys = MappedKeys { row_key: row_key.unwrap_or_default(), ..MappedKeys::default() };
    match direction.target() {
        Side::Old => add_unique_keys(old, old_places, &mut keys),
        Side::New => add_unique_keys(new, new_places, &mut keys),
    }
    keys
}

/// Every key that identifies rows and whose columns are all carried, as places among the carried columns.
fn row_keys(shape: &TableShape, places: &[usize]) -> Vec<Vec<usize>> {
    let primary = Some(&shape.primary_key).filter(|key| !key.is_empty());
    let unique = shape.unique_keys.iter().filter(|key| !key.nullable && !key.partial).map(|key| &key.columns);
    primary.into_iter().chain(unique).filter_map(|key| carried(key, places)).collect()
}

fn carried(key: &[usize], places: &[usize]) -> Option<Vec<usize>> {
    let key: Option<Vec<usize>> = key.iter().map(|column| places.iter().position(|place| place == column)).collect();
    key.filter(|key| !key.is_empty())
}

fn same_columns(a: &[usize], b: &[usize]) -> bool {
    a.len() == b.len() && a.iter().all(|column| b.contains(column))
}

fn add_unique_keys(shape: &TableShape, places: &[usize], keys: &mut MappedKeys) {
    let primary = ("PRIMARY", shape.primary_key.as_slice(), false);
    let others = shape.unique_keys.iter().map(|key| (key.name.as_str(), key.columns.as_slice(), key.partial));
    for (name, columns, partial) in std::iter::once(primary).filter(|(_, key, _)| !key.is_empty()).chain(others) {
        // A number that the target hands out is new every time.
        let handed_out = |column: &usize| !places.contains(column) && shape.columns[*column].auto_increment;
        if !partial && columns.iter().any(handed_out) {
            continue;
        }
        match carried(columns, places) {
            Some(key) if !partial => {
                if !same_columns(&key, &keys.row_key) && !keys.unique_keys.contains(&key) {
                    keys.unique_keys.push(key);
                }
            }
            _ => keys.opaque.push(name.to_owned()),
        }
    }
}
