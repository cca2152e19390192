//! The changes that a partial update lists instead of a document (MySQL source, `json_diff.h`).

use std::borrow::Cow;

use super::super::cursor::Cursor;
use super::binary;
use super::path::{self, Step};
use super::tree::{MAX_DEPTH, Tree};

const MALFORMED: &str = "a malformed list of JSON changes";
const NO_SUCH_PATH: &str = "a JSON change at a path that the document lacks";

const REPLACE: u8 = 0;
const INSERT: u8 = 1;
const REMOVE: u8 = 2;

/// Applies each change in turn: operation, path, and a document unless it removes.
pub(super) fn apply<'a>(tree: &mut Tree<'a>, changes: &'a [u8]) -> Result<(), &'static str> {
    let mut changes = Cursor::new(changes);
    while !changes.is_empty() {
        let operation = changes.u8("a JSON change").map_err(|_| MALFORMED)?;
        let path = changes.packed_bytes("a JSON path").map_err(|_| MALFORMED)?;
        let path = std::str::from_utf8(path).map_err(|_| MALFORMED)?;
        let steps = path::parse(path).filter(|steps| steps.len() < MAX_DEPTH).ok_or(MALFORMED)?;
        match operation {
            REPLACE | INSERT => {
                let value = binary::read(changes.packed_bytes("a JSON value").map_err(|_| MALFORMED)?)?;
                if operation == REPLACE {
                    *descend(tree, &steps).ok_or(NO_SUCH_PATH)? = value;
                } else {
                    insert(tree, &steps, value)?;
                }
            }
            REMOVE => remove(tree, &steps)?,
            _ => return Err(MALFORMED),
        }
    }
    Ok(())
}

fn descend<'t, 'a>(tree: &'t mut Tree<'a>, steps: &[Step<String>]) -> Option<&'t mut Tree<'a>> {
    steps.iter().try_fold(tree, |tree, step| match (tree, step) {
        (Tree::Object(members), Step::Member(key)) => {
            let place = Tree::place_of(members, key).ok()?;
            Some(&mut members[place].1)
        }
        (Tree::Array(elements), Step::Element(place)) => elements.get_mut(*place),
        // A path may go through a lone value as if it were an array of one.
        (lone @ (Tree::Object(_) | Tree::Scalar(_)), Step::Element(0)) => Some(lone),
        _ => None,
    })
}

fn insert<'a>(tree: &mut Tree<'a>, steps: &[Step<String>], value: Tree<'a>) -> Result<(), &'static str> {
    let (last, parents) = steps.split_last().ok_or(NO_SUCH_PATH)?;
    match (descend(tree, parents).ok_or(NO_SUCH_PATH)?, last) {
        (Tree::Object(members), Step::Member(key)) => match Tree::place_of(members, key) {
            Ok(_) => return Err("a JSON member that is inserted twice"),
            Err(place) => members.insert(place, (Cow::Owned(key.clone()), value)),
        },
        (Tree::Array(elements), Step::Element(place)) => elements.insert((*place).min(elements.len()), value),
        _ => return Err(NO_SUCH_PATH),
    }
    Ok(())
}

fn remove(tree: &mut Tree<'_>, steps: &[Step<String>]) -> Result<(), &'static str> {
    let (last, parents) = steps.split_last().ok_or(NO_SUCH_PATH)?;
    match (descend(tree, parents).ok_or(NO_SUCH_PATH)?, last) {
        (Tree::Object(members), Step::Member(key)) => {
            members.remove(Tree::place_of(members, key).map_err(|_| NO_SUCH_PATH)?);
        }
        (Tree::Array(elements), Step::Element(place)) if *place < elements.len() => {
            elements.remove(*place);
        }
        _ => return Err(NO_SUCH_PATH),
    }
    Ok(())
}
