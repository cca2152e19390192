//! The rows that hang on entities, on each side, and the entities that a condition picks.

use std::sync::Arc;

use anyhow::Context;
use crossfade_config::{EntityReach, EntitySettings, EntityTable};
use crossfade_model::{
    Column, ColumnKind, Direction, EntityKey, KEY_MAX_BYTES, Side, TableName, TableShape, Value, quote_identifier,
};
use crossfade_rules::TableMapping;
use crossfade_verify::{Pick, PickedTable, TablePair};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Params, Row};

use crate::failure::{Failure, Kind};
use crate::pair::Pair;

/// Deeper than any chain of parents is.
const MOST_PARENTS: usize = 64;

/// Finds rows of entities in a pair's tables.
pub struct Rows<'r> {
    pair: &'r Pair,
    entity: &'r EntitySettings,
}

impl<'r> Rows<'r> {
    pub fn new(pair: &'r Pair, entity: &'r EntitySettings) -> Rows<'r> {
        Rows { pair, entity }
    }

    /// Parents before their children.
    pub fn tables(&self) -> Vec<&'r EntityTable> {
        let mut tables: Vec<&EntityTable> = self.entity.tables.iter().collect();
        tables.sort_by_key(|table| self.depth(table));
        tables
    }

    /// A table's name on a side.
    pub fn name(&self, old: &TableName, side: Side) -> anyhow::Result<TableName> {
        let mapping = self.mapping(old)?;
        Ok(if side == Side::Old { mapping.source.clone() } else { mapping.target.clone() })
    }

    /// A column's name on a side.
    pub fn column_name(&self, old: &TableName, side: Side, column: &str) -> anyhow::Result<String> {
        Ok(self.column(self.mapping(old)?, side, column)?.name.clone())
    }

    /// The name of the parent's column that a child refers to.
    pub fn referred_name(&self, child: &EntityTable, side: Side) -> anyhow::Result<String> {
        let EntityReach::Through { parent, .. } = &child.reach else { anyhow::bail!("{} has no parent", child.old) };
        Ok(self.referred(child, self.mapping(&child.old)?, self.mapping(parent)?, side)?.name.clone())
    }

    /// What children of an entity refer to now, as text.
    pub async fn referred_values(
        &self,
        conn: &mut Conn,
        child: &EntityTable,
        side: Side,
        key: &EntityKey,
    ) -> anyhow::Result<Vec<String>> {
        let EntityReach::Through { parent, .. } = &child.reach else { anyhow::bail!("{} has no parent", child.old) };
        let parent_mapping = self.mapping(parent)?;
        let parent_table = self.entity.table(parent).with_context(|| format!("{parent} is no table of an entity"))?;
        let pick = self.pick(parent_table, side, std::slice::from_ref(key), 0)?;
        let column = self.referred(child, self.mapping(&child.old)?, parent_mapping, side)?;
        let (shown, name) = (shown(column), quote_identifier(&column.name));
        let table = self.shape(side, parent_mapping)?.name.quoted();
        let sql = format!("SELECT {shown} FROM {table} WHERE {} AND {name} IS NOT NULL", pick.condition);
        Ok(conn.exec(sql, Params::Positional(pick.params)).await?)
    }

    /// All rows that hang on these, parents before their children.
    pub fn of(&self, keys: &[EntityKey]) -> anyhow::Result<Vec<PickedTable>> {
        self.tables()
            .into_iter()
            .map(|table| {
                let mapping = self.mapping(&table.old)?;
                let pair = TablePair {
                    mapping: mapping.clone(),
                    old: self.shape(Side::Old, mapping)?.clone(),
                    new: self.shape(Side::New, mapping)?.clone(),
                };
                let [old, new] = [self.pick(table, Side::Old, keys, 0)?, self.pick(table, Side::New, keys, 0)?];
                Ok(PickedTable { pair, old, new })
            })
            .collect()
    }

    /// The tables, for who repairs.
    pub fn pairs(&self) -> anyhow::Result<Vec<TablePair>> {
        Ok(self.of(&[])?.into_iter().map(|table| table.pair).collect())
    }

    fn depth(&self, table: &EntityTable) -> usize {
        let mut depth = 0;
        let mut at = table;
        while let EntityReach::Through { parent, .. } = &at.reach
            && let Some(next) = self.entity.table(parent)
            && depth < MOST_PARENTS
        {
            (at, depth) = (next, depth + 1);
        }
        depth
    }

    /// The condition that a row hangs on one of these.
    fn pick(&self, table: &EntityTable, side: Side, keys: &[EntityKey], depth: usize) -> anyhow::Result<Pick> {
        let mapping = self.mapping(&table.old)?;
        match &table.reach {
            EntityReach::Key(key) => {
                let column = self.column(mapping, side, key)?;
                let (mut places, mut params) = (Vec::new(), Vec::new());
                for (place, value) in keys.iter().filter_map(|key| bound(column, key)) {
                    places.push(place);
                    params.push(value);
                }
                let name = quote_identifier(&column.name);
                let condition =
                    if places.is_empty() { "1 = 0".to_owned() } else { format!("{name} IN ({})", places.join(", ")) };
                Ok(Pick { condition, params })
            }
            EntityReach::Through { parent, via } => {
                let parent_table = self.entity.table(parent).filter(|_| depth < MOST_PARENTS);
                let parent_table = parent_table.with_context(|| format!("{parent} is no table of an entity"))?;
                let inner = self.pick(parent_table, side, keys, depth + 1)?;
                let parent_mapping = self.mapping(parent)?;
                let via = quote_identifier(&self.column(mapping, side, via)?.name);
                let referred = quote_identifier(&self.referred(table, mapping, parent_mapping, side)?.name);
                let parent_name = self.shape(side, parent_mapping)?.name.quoted();
                let condition = format!("{via} IN (SELECT {referred} FROM {parent_name} WHERE {})", inner.condition);
                Ok(Pick { condition, params: inner.params })
            }
        }
    }

    /// The parent's column that a child refers to: as its foreign key says, else the parent's primary key.
    fn referred<'s>(
        &'s self,
        table: &EntityTable,
        mapping: &TableMapping,
        parent: &TableMapping,
        side: Side,
    ) -> anyhow::Result<&'s Column> {
        let EntityReach::Through { via, .. } = &table.reach else { anyhow::bail!("{} has no parent", table.old) };
        let shape = self.shape(Side::Old, mapping)?;
        let parent_shape = self.shape(Side::Old, parent)?;
        let is_via = |index: &usize| shape.columns[*index].name.eq_ignore_ascii_case(via);
        let named = shape
            .foreign_keys
            .iter()
            .find(|key| key.parent == parent.source && matches!(&key.columns[..], [only] if is_via(only)))
            .and_then(|key| key.parent_columns.first().cloned());
        let column = match (named, &parent_shape.primary_key[..]) {
            (Some(named), _) => named,
            (None, [only]) => parent_shape.columns[*only].name.clone(),
            (None, _) => {
                let message =
                    format!("{} has no single column that `{via}` of {} could refer to", parent.source, table.old);
                let hint = "give the parent a primary key of one column, or the child a foreign key of one";
                return Err(Failure::new(Kind::Usage, message, hint).into());
            }
        };
        self.column(parent, side, &column)
    }

    /// A column by its name on the old side.
    fn column<'s>(&'s self, mapping: &TableMapping, side: Side, name: &str) -> anyhow::Result<&'s Column> {
        let not_carried = || {
            let message = format!("{} has no column `{name}` that is carried", mapping.source);
            Failure::new(
                Kind::Usage,
                message,
                "name a column of the old side that both sides have, in `[[entity.table]]`",
            )
        };
        let mapped = mapping.columns.iter().find(|column| column.source.eq_ignore_ascii_case(name));
        let mapped = mapped.ok_or_else(not_carried)?;
        let name = if side == Side::Old { &mapped.source } else { &mapped.target };
        let shape = self.shape(side, mapping)?;
        let index = shape.column(name).ok_or_else(not_carried)?;
        Ok(&shape.columns[index])
    }

    fn mapping(&self, old: &TableName) -> anyhow::Result<&'r TableMapping> {
        let found = self.pair.mappings(Direction::Forward).iter().find(|mapping| mapping.source == *old);
        Ok(found.ok_or_else(|| self.pair.not_synced(old))?)
    }

    fn shape(&self, side: Side, mapping: &TableMapping) -> anyhow::Result<&'r Arc<TableShape>> {
        let name = if side == Side::Old { &mapping.source } else { &mapping.target };
        let found = self.pair.side(side).shapes.get(name);
        found.with_context(|| format!("{name} does not exist on the {side} side"))
    }

    /// Those of these whose root row is on the old side.
    pub async fn existing(&self, conn: &mut Conn, keys: &[EntityKey]) -> anyhow::Result<Vec<EntityKey>> {
        let pick = self.pick(self.entity.root(), Side::Old, keys, 0)?;
        self.keys_where(conn, Side::Old, &pick, None, u32::MAX).await
    }

    /// Up to `most` keys of the root table, in its order, behind `after`. The condition is in that side's SQL.
    pub async fn keys(
        &self,
        conn: &mut Conn,
        side: Side,
        condition: Option<&str>,
        after: Option<&EntityKey>,
        most: u32,
    ) -> anyhow::Result<Vec<EntityKey>> {
        // A comment at its end must not hide the bracket.
        let condition = condition.map_or("1 = 1".to_owned(), |condition| format!("({condition}\n)"));
        self.keys_where(conn, side, &Pick { condition, params: Vec::new() }, after, most).await
    }

    async fn keys_where(
        &self,
        conn: &mut Conn,
        side: Side,
        pick: &Pick,
        after: Option<&EntityKey>,
        most: u32,
    ) -> anyhow::Result<Vec<EntityKey>> {
        let root = self.entity.root();
        let EntityReach::Key(key) = &root.reach else { anyhow::bail!("{} holds no key", root.old) };
        let mapping = self.mapping(&root.old)?;
        let column = self.column(mapping, side, key)?;
        let (name, shown) = (quote_identifier(&column.name), shown(column));
        // Asked of the server: a page from which some were left out here would look like the last one.
        let is_key = format!("LENGTH({shown}) BETWEEN 1 AND {KEY_MAX_BYTES}");
        let mut params = pick.params.clone();
        let mut behind = String::new();
        if let Some((place, value)) = after.and_then(|after| bound(column, after)) {
            behind = format!(" AND {name} > {place}");
            params.push(value);
        }
        let table = self.shape(side, mapping)?.name.quoted();
        let sql = format!(
            "SELECT DISTINCT {shown}, {name} FROM {table} WHERE {} AND {is_key}{behind} ORDER BY {name} LIMIT {most}",
            pick.condition
        );
        let rows: Vec<Row> = conn.exec(sql, Params::Positional(params)).await.map_err(|error| {
            let message = format!("{} cannot be read on the {side} side: {error}", root.old);
            Failure::new(Kind::Finding, message, "with `--where`, write a condition as that side's SQL has it")
        })?;
        let mut keys = Vec::with_capacity(rows.len());
        for row in rows {
            let text = row.get_opt::<String, _>(0).and_then(Result::ok);
            keys.extend(text.and_then(|text| key_of(column, text)));
        }
        Ok(keys)
    }
}

/// The key as text, in the one form that keys have.
fn shown(column: &Column) -> String {
    let name = quote_identifier(&column.name);
    match column.kind {
        ColumnKind::Integer { .. } | ColumnKind::Year | ColumnKind::Bit { .. } => format!("CAST({name} + 0 AS CHAR)"),
        ColumnKind::Bytes { .. } => format!("CONCAT('0x', LOWER(HEX({name})))"),
        _ => format!("CAST({name} AS CHAR)"),
    }
}

fn key_of(column: &Column, text: String) -> Option<EntityKey> {
    match column.kind {
        ColumnKind::Decimal { .. } => EntityKey::of(&Value::Decimal(text)),
        _ => EntityKey::parse(&text),
    }
}

/// A key as a column is compared with it; `None` where no row of the column can have it.
fn bound(column: &Column, key: &EntityKey) -> Option<(&'static str, mysql_async::Value)> {
    let text = key.as_str();
    let as_text = || mysql_async::Value::Bytes(text.as_bytes().to_vec());
    match column.kind {
        ColumnKind::Integer { .. } | ColumnKind::Year | ColumnKind::Bit { .. } => {
            let signed = text.parse::<i64>().map(mysql_async::Value::Int).ok();
            signed.or_else(|| text.parse::<u64>().map(mysql_async::Value::UInt).ok()).map(|number| ("?", number))
        }
        ColumnKind::Decimal { .. } => Some(("CAST(? AS DECIMAL(65, 30))", as_text())),
        ColumnKind::Bytes { .. } => {
            let digits = text.strip_prefix("0x").filter(|digits| digits.len() % 2 == 0)?;
            digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
            Some(("UNHEX(?)", mysql_async::Value::Bytes(digits.as_bytes().to_vec())))
        }
        _ => Some(("?", as_text())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> EntityKey {
        EntityKey::parse(text).expect("a key")
    }

    #[test]
    fn a_key_is_compared_as_its_column_has_it() {
        let integer = Column::plain("id", ColumnKind::Integer { bytes: 8, unsigned: true });
        assert_eq!(bound(&integer, &key("-7")), Some(("?", mysql_async::Value::Int(-7))));
        assert_eq!(bound(&integer, &key("18446744073709551615")), Some(("?", mysql_async::Value::UInt(u64::MAX))));
        assert_eq!(bound(&integer, &key("7a")), None, "no row has it");
        let bytes = Column::plain("id", ColumnKind::Bytes { fixed_len: 0 });
        assert_eq!(bound(&bytes, &key("0x00ab")), Some(("UNHEX(?)", mysql_async::Value::Bytes(b"00ab".to_vec()))));
        assert_eq!(bound(&bytes, &key("00ab")), None);
        let text = Column::plain("id", ColumnKind::Text { charset: "utf8mb4".to_owned() });
        assert_eq!(bound(&text, &key("Ann ")), Some(("?", mysql_async::Value::Bytes(b"Ann ".to_vec()))));
    }
}
