//! Which indexes of the new side are dropped for the time of the copying.

use crossfade_message::{CopyState, DeferredIndex, DeferredState, Store};
use crossfade_model::{Direction, Side, TableName};
use crossfade_schema::{SideSchema, deferrable_indexes, has_rows};

use crate::failure::{Failure, Kind};
use crate::pair::{Pair, open_side};

/// The indexes that can be dropped. Tables whose copying has begun are left as they are.
pub async fn indexes(pair: &Pair, store: &Store, tables: &[TableName]) -> anyhow::Result<Vec<DeferredIndex>> {
    let copies = store.copies().await?;
    let has_begun =
        |table: &TableName| copies.iter().any(|copy| copy.table == *table && copy.state != CopyState::Waiting);
    let (conn, facts) = open_side(&pair.settings, Side::New).await?;
    let mut new = SideSchema::read(Side::New, conn, facts.dialect()).await?;
    let (mut indexes, mut with_rows) = (Vec::new(), Vec::new());
    for mapping in pair.mappings(Direction::Forward).iter().filter(|mapping| tables.contains(&mapping.source)) {
        let (table, target) = (&mapping.source, &mapping.target);
        if has_begun(table) {
            eprintln!("{table}: its copying has begun, so its indexes stay");
        } else if has_rows(&mut new, target).await? {
            with_rows.push(target.to_string());
        } else {
            let found = deferrable_indexes(&mut new, target).await?.into_iter();
            indexes.extend(found.map(|index| DeferredIndex {
                table: table.clone(),
                target: target.clone(),
                name: index.name,
                definition: index.definition,
                state: DeferredState::ToDrop,
                reason: None,
            }));
        }
    }
    if with_rows.is_empty() {
        return Ok(indexes);
    }
    let message = format!(
        "indexes of empty tables alone are dropped, and these have rows on the new side: {}",
        with_rows.join(", ")
    );
    let hint = "start these without `--defer-secondary-indexes`, and name the others with `--table`";
    Err(Failure::new(Kind::Finding, message, hint).into())
}
