//! A table of the target: the statements that read and write it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use crossfade_model::{Column, ColumnKind, Row, TableName, Value as Cell, quote_identifier};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, ServerError, Value as Param};

use crate::bind::{needs_lenient_mode, param_count, placeholder, push_equals, push_params, select_expression};
use crate::read::cell;
use crate::session::{LENIENT_SQL_MODE, STRICT_SQL_MODE};

/// Placeholders that one prepared statement may have (MySQL and MariaDB: 65,535), with room for the pieces of a row.
const MAX_PLACEHOLDERS: usize = 60_000;
/// Rows of one statement. Sizes are powers of two, so that few statements are prepared and all are used again; those of conditions
/// see [`padded_len`].
const MAX_ROWS: usize = 512;
/// Longer lists are not padded.
const MAX_PADDED: usize = 64;
/// Bytes of values in one statement; far below the usual `max_allowed_packet`.
const MAX_BYTES: usize = 1 << 20;
/// A statement whose values are larger than this together sends each of them by itself (MySQL protocol, "Sending More Than
/// 16Mb"; COM_STMT_SEND_LONG_DATA).
const VALUES_TOGETHER_BYTES: usize = (1 << 24) - 1;

/// The largest packet that the target takes, as its sessions are told when they begin. A server that is sent a larger one
/// hangs up, often without a word that arrives.
#[derive(Debug, Clone)]
pub(crate) struct PacketLimit(Arc<AtomicUsize>);

impl PacketLimit {
    /// The protocol's own limit, until a session tells.
    pub fn new() -> PacketLimit {
        PacketLimit(Arc::new(AtomicUsize::new(1 << 30)))
    }

    pub fn set(&self, bytes: usize) {
        self.0.store(bytes, Relaxed);
    }

    fn bytes(&self) -> usize {
        self.0.load(Relaxed)
    }

    /// # Errors
    ///
    /// What the server would say (ER_NET_PACKET_TOO_LARGE), if it did.
    fn check(&self, params: &[Param]) -> Result<(), mysql_async::Error> {
        let (limit, bytes) = (self.bytes(), params.iter().map(sent_bytes).sum::<usize>() + params.len() / 8 + 16);
        let fits_by_parts = || bytes > VALUES_TOGETHER_BYTES && params.iter().all(|param| sent_bytes(param) <= limit);
        if bytes <= limit || fits_by_parts() {
            return Ok(());
        }
        Err(mysql_async::Error::Server(ServerError {
            code: 1153,
            state: "08S01".to_owned(),
            message: format!("the row needs a packet of {bytes} bytes, and the target's max_allowed_packet is {limit}"),
        }))
    }
}

/// At most so many bytes stand for a value in a packet, its type and length included.
fn sent_bytes(param: &Param) -> usize {
    match param {
        Param::Bytes(bytes) => bytes.len() + 11,
        _ => 14,
    }
}

/// Rows in the order of the mapping's columns; keys in the order of the target's row key.
pub(crate) struct TargetTable {
    quoted: String,
    columns: Vec<Column>,
    key: Vec<usize>,
    insert_head: String,
    upsert_tail: String,
    select_list: String,
    /// Columns as the server gives them, text as Unicode.
    plain_list: String,
    key_list: String,
    /// The table with its key's index forced: with the statistics of a table that was just filled, a server may read, and
    /// lock, all of it instead.
    by_key: String,
    key_selects: String,
    plain_row: String,
    packet: PacketLimit,
}

impl TargetTable {
    pub fn new(
        name: &TableName,
        columns: Vec<Column>,
        source_kinds: &[ColumnKind],
        key: Vec<usize>,
        key_index: Option<&str>,
        is_mysql: bool,
        packet: PacketLimit,
    ) -> TargetTable {
        let quoted = name.quoted();
        let names: Vec<String> = columns.iter().map(|column| quote_identifier(&column.name)).collect();
        // MySQL refuses a row alias that is the table's own name.
        let alias = if name.table.eq_ignore_ascii_case("incoming") { "arriving" } else { "incoming" };
        let assignments: Vec<String> = names
            .iter()
            .map(|name| if is_mysql { format!("{name} = {alias}.{name}") } else { format!("{name} = VALUE({name})") })
            .collect();
        let selects: Vec<String> =
            columns.iter().zip(source_kinds).map(|(column, kind)| select_expression(column, kind)).collect();
        let key_names: Vec<&str> = key.iter().map(|index| names[*index].as_str()).collect();
        TargetTable {
            insert_head: format!("INSERT INTO {quoted} ({}) VALUES ", names.join(", ")),
            upsert_tail: format!(
                "{} ON DUPLICATE KEY UPDATE {}",
                if is_mysql { format!(" AS {alias}") } else { String::new() },
                assignments.join(", ")
            ),
            select_list: selects.join(", "),
            plain_list: names.join(", "),
            key_list: key_names.join(", "),
            by_key: key_index
                .map_or_else(|| quoted.clone(), |index| format!("{quoted} FORCE INDEX ({})", quote_identifier(index))),
            key_selects: key.iter().map(|index| selects[*index].as_str()).collect::<Vec<_>>().join(", "),
            plain_row: plain_tuple(columns.len()),
            packet,
            quoted,
            columns,
            key,
        }
    }

    /// Inserts rows that must not exist; a duplicate key is an error.
    pub async fn insert(&self, conn: &mut Conn, rows: &[&Row]) -> Result<(), mysql_async::Error> {
        self.write(conn, rows, "").await
    }

    /// Overwrites rows that exist and are locked by this transaction. The primary key is checked before every other
    /// unique key, so the row that is found is the locked one.
    pub async fn overwrite(&self, conn: &mut Conn, rows: &[&Row]) -> Result<(), mysql_async::Error> {
        self.write(conn, rows, &self.upsert_tail).await
    }

    async fn write(&self, conn: &mut Conn, rows: &[&Row], tail: &str) -> Result<(), mysql_async::Error> {
        let mut rest = rows;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(self.chunk_len(rest, self.columns.len()));
            rest = after;
            self.write_chunk(conn, chunk, tail).await?;
        }
        Ok(())
    }

    async fn write_chunk(&self, conn: &mut Conn, chunk: &[&Row], tail: &str) -> Result<(), mysql_async::Error> {
        let mut sql = self.insert_head.clone();
        let mut params = Vec::with_capacity(chunk.len() * self.columns.len());
        for (number, row) in chunk.iter().enumerate() {
            if number > 0 {
                sql.push(',');
            }
            self.push_tuple(row, &mut sql, &mut params);
        }
        sql.push_str(tail);
        let lenient = chunk.iter().any(|row| self.needs_lenient_mode(row));
        self.exec_in_mode(conn, lenient, sql, params).await
    }

    fn push_tuple(&self, row: &Row, sql: &mut String, params: &mut Vec<Param>) {
        if row.iter().all(is_plain) {
            sql.push_str(&self.plain_row);
        } else {
            sql.push('(');
            for (number, (cell, column)) in row.iter().zip(&self.columns).enumerate() {
                sql.push_str(if number > 0 { "," } else { "" });
                sql.push_str(&placeholder(cell, column));
            }
            sql.push(')');
        }
        for (cell, column) in row.iter().zip(&self.columns) {
            push_params(cell, column, params);
        }
    }

    /// Moves a locked row to a new key and sets all its columns.
    pub async fn rekey(&self, conn: &mut Conn, from: &[&Cell], to: &Row) -> Result<(), mysql_async::Error> {
        let (mut sql, mut params) = self.update_head(to);
        self.push_key_condition(&[from], &mut sql, &mut params);
        self.exec_in_mode(conn, self.needs_lenient_mode(to), sql, params).await
    }

    /// Sets some columns of a locked row. What the server would touch by itself it then leaves alone.
    pub async fn change(
        &self,
        conn: &mut Conn,
        key: &[&Cell],
        values: &BTreeMap<usize, Cell>,
    ) -> Result<(), mysql_async::Error> {
        let (mut assignments, mut params, mut is_lenient) = (Vec::new(), Vec::new(), false);
        for (index, column) in self.columns.iter().enumerate() {
            let name = quote_identifier(&column.name);
            if let Some(cell) = values.get(&index) {
                assignments.push(format!("{name} = {}", placeholder(cell, column)));
                push_params(cell, column, &mut params);
                is_lenient |= needs_lenient_mode(cell, column);
            } else if column.on_update_now {
                assignments.push(format!("{name} = {name}"));
            }
        }
        let mut sql = format!("UPDATE {} SET {} WHERE ", self.quoted, assignments.join(", "));
        self.push_key_condition(&[key], &mut sql, &mut params);
        self.exec_in_mode(conn, is_lenient, sql, params).await
    }

    /// An UPDATE that sets all columns, up to its condition.
    fn update_head(&self, row: &Row) -> (String, Vec<Param>) {
        let mut sql = format!("UPDATE {} SET ", self.quoted);
        let mut params = Vec::new();
        for (number, (cell, column)) in row.iter().zip(&self.columns).enumerate() {
            sql.push_str(if number > 0 { ", " } else { "" });
            sql.push_str(&quote_identifier(&column.name));
            sql.push_str(" = ");
            sql.push_str(&placeholder(cell, column));
            push_params(cell, column, &mut params);
        }
        sql.push_str(" WHERE ");
        (sql, params)
    }

    /// Deletes by key, and tells whether every row was there; those that do not exist are no error.
    pub async fn delete(&self, conn: &mut Conn, keys: &[Vec<&Cell>]) -> Result<bool, mysql_async::Error> {
        let mut deleted = 0;
        let mut rest = keys;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(condition_rows(rest.len(), self.key.len()));
            rest = after;
            let mut sql = format!("DELETE FROM {} WHERE ", self.quoted);
            let mut params = Vec::new();
            let keys: Vec<&[&Cell]> = chunk.iter().map(Vec::as_slice).collect();
            self.push_key_condition(&keys, &mut sql, &mut params);
            conn.exec_drop(sql, params).await?;
            deleted += conn.affected_rows();
        }
        Ok(deleted >= keys.len() as u64)
    }

    /// Deletes up to so many rows, whichever; returns how many.
    pub async fn delete_some(&self, conn: &mut Conn, limit: u32) -> Result<u64, mysql_async::Error> {
        conn.query_drop(format!("DELETE FROM {} LIMIT {limit}", self.quoted)).await?;
        Ok(conn.affected_rows())
    }

    /// Locks the rows of these keys and tells, in the order of `keys`, which exist.
    ///
    /// The server compares the keys. A row whose key equals an asked one only by collation is found by asking once more
    /// for each key that found nothing.
    pub async fn lock_and_tell(&self, conn: &mut Conn, keys: &[Vec<&Cell>]) -> Result<Vec<bool>, mysql_async::Error> {
        let found = self.lock(conn, keys, false).await?;
        Ok(found.iter().map(Option::is_some).collect())
    }

    /// As [`lock_and_tell`](TargetTable::lock_and_tell), with all columns of the rows.
    pub async fn lock_rows(
        &self,
        conn: &mut Conn,
        keys: &[Vec<&Cell>],
    ) -> Result<Vec<Option<Row>>, mysql_async::Error> {
        self.lock(conn, keys, true).await
    }

    /// Rows without columns unless `whole`.
    async fn lock(
        &self,
        conn: &mut Conn,
        keys: &[Vec<&Cell>],
        whole: bool,
    ) -> Result<Vec<Option<Row>>, mysql_async::Error> {
        let mut found = Vec::with_capacity(keys.len());
        let mut rest = keys;
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(condition_rows(rest.len(), self.key.len()));
            rest = after;
            found.extend(self.lock_chunk(conn, chunk, whole).await?);
        }
        Ok(found)
    }

    async fn lock_chunk(
        &self,
        conn: &mut Conn,
        keys: &[Vec<&Cell>],
        whole: bool,
    ) -> Result<Vec<Option<Row>>, mysql_async::Error> {
        let slices: Vec<&[&Cell]> = keys.iter().map(Vec::as_slice).collect();
        let mut rows = self.select_locked(conn, &slices, whole).await?;
        let mut found: Vec<Option<Row>> = Vec::with_capacity(keys.len());
        let mut by_key: std::collections::HashMap<Vec<u8>, Row> =
            rows.drain(..).map(|(key, row)| (key_bytes(key.iter()), row)).collect();
        for key in keys {
            found.push(by_key.remove(&key_bytes(key.iter().copied())));
        }
        if !by_key.is_empty() {
            for (slot, key) in found.iter_mut().zip(&slices).filter(|(slot, _)| slot.is_none()) {
                *slot = self.select_locked(conn, &[key], whole).await?.pop().map(|(_, row)| row);
            }
        }
        Ok(found)
    }

    async fn select_locked(
        &self,
        conn: &mut Conn,
        keys: &[&[&Cell]],
        whole: bool,
    ) -> Result<Vec<(Row, Row)>, mysql_async::Error> {
        let list = if whole { &self.select_list } else { &self.key_selects };
        let mut sql = format!("SELECT {list} FROM {} WHERE ", self.by_key);
        let mut params = Vec::with_capacity(keys.len() * self.key.len());
        self.push_key_condition(keys, &mut sql, &mut params);
        sql.push_str(" FOR UPDATE");
        let rows: Vec<mysql_async::Row> = conn.exec(sql, params).await?;
        Ok(rows.into_iter().map(|row| self.cells(row, whole)).collect())
    }

    fn cells(&self, row: mysql_async::Row, whole: bool) -> (Row, Row) {
        let raw = row.unwrap_raw();
        let raw = raw.into_iter().map(|value| value.unwrap_or(Param::NULL));
        if whole {
            let row: Row = raw.zip(&self.columns).map(|(value, column)| cell(value, &column.kind)).collect();
            (self.key.iter().map(|index| row[*index].clone()).collect(), row)
        } else {
            let key = raw.zip(&self.key).map(|(value, index)| cell(value, &self.columns[*index].kind)).collect();
            (key, Row::new())
        }
    }

    fn push_key_condition(&self, keys: &[&[&Cell]], sql: &mut String, params: &mut Vec<Param>) {
        self.push_condition(&self.key, &self.key_list, keys, sql, params);
    }

    /// That the columns, named in `list`, have one of these values.
    fn push_condition(
        &self,
        columns: &[usize],
        list: &str,
        tuples: &[&[&Cell]],
        sql: &mut String,
        params: &mut Vec<Param>,
    ) {
        if let ([_, _, ..], [tuple]) = (columns, tuples) {
            // Asked for one tuple, MariaDB's UPDATE and DELETE read, and lock, the whole table.
            for (part, (cell, index)) in tuple.iter().zip(columns).enumerate() {
                let column = &self.columns[*index];
                sql.push_str(if part > 0 { " AND " } else { "" });
                sql.push_str(&quote_identifier(&column.name));
                sql.push_str(" = ");
                sql.push_str(&placeholder(cell, column));
                push_params(cell, column, params);
            }
            return;
        }
        let is_tuple = columns.len() > 1;
        let (opening, closing) = if is_tuple { ("(", ")") } else { ("", "") };
        sql.push_str(opening);
        sql.push_str(list);
        sql.push_str(closing);
        sql.push_str(" IN (");
        for (number, tuple) in padded(tuples).enumerate() {
            sql.push_str(if number > 0 { "," } else { "" });
            sql.push_str(opening);
            for (part, (cell, index)) in tuple.iter().zip(columns).enumerate() {
                let column = &self.columns[*index];
                sql.push_str(if part > 0 { "," } else { "" });
                match in_its_charset(cell, column) {
                    Some(converted) if is_tuple => sql.push_str(&converted),
                    _ => sql.push_str(&placeholder(cell, column)),
                }
                push_params(cell, column, params);
            }
            sql.push_str(closing);
        }
        sql.push(')');
    }

    /// Locks and reads the rows that have one of these tuples of values in these columns. Text comes as Unicode.
    pub async fn lock_where(
        &self,
        conn: &mut Conn,
        columns: &[usize],
        tuples: &[Vec<&Cell>],
    ) -> Result<Vec<Row>, mysql_async::Error> {
        self.rows_where(conn, columns, tuples, " FOR UPDATE").await
    }

    /// Reads what [`TargetTable::lock_where`] does, without locking it.
    pub async fn look_where(
        &self,
        conn: &mut Conn,
        columns: &[usize],
        tuples: &[Vec<&Cell>],
    ) -> Result<Vec<Row>, mysql_async::Error> {
        self.rows_where(conn, columns, tuples, "").await
    }

    /// What there is of these tuples of values in these columns; `shared`: and stays until the commit.
    pub async fn values_where(
        &self,
        conn: &mut Conn,
        columns: &[usize],
        tuples: &[Vec<&Cell>],
        shared: bool,
    ) -> Result<Vec<Row>, mysql_async::Error> {
        let lock = if shared { " LOCK IN SHARE MODE" } else { "" };
        let rows = self.select_where(conn, &self.names(columns), columns, tuples, lock).await?;
        let values = |row: mysql_async::Row| {
            let raw = row.unwrap_raw().into_iter().map(|value| value.unwrap_or(Param::NULL));
            raw.zip(columns).map(|(value, column)| cell(value, &self.columns[*column].kind)).collect()
        };
        Ok(rows.into_iter().map(values).collect())
    }

    async fn rows_where(
        &self,
        conn: &mut Conn,
        columns: &[usize],
        tuples: &[Vec<&Cell>],
        lock: &str,
    ) -> Result<Vec<Row>, mysql_async::Error> {
        let rows = self.select_where(conn, &self.plain_list, columns, tuples, lock).await?;
        Ok(rows.into_iter().map(|row| self.cells(row, true).1).collect())
    }

    async fn select_where(
        &self,
        conn: &mut Conn,
        list: &str,
        columns: &[usize],
        tuples: &[Vec<&Cell>],
        lock: &str,
    ) -> Result<Vec<mysql_async::Row>, mysql_async::Error> {
        let (names, mut found, mut rest) = (self.names(columns), Vec::new(), tuples);
        let table = if columns == self.key { &self.by_key } else { &self.quoted };
        while !rest.is_empty() {
            let (chunk, after) = rest.split_at(condition_rows(rest.len(), columns.len()));
            rest = after;
            let mut sql = format!("SELECT {list} FROM {table} WHERE ");
            let mut params = Vec::new();
            let tuples: Vec<&[&Cell]> = chunk.iter().map(Vec::as_slice).collect();
            self.push_condition(columns, &names, &tuples, &mut sql, &mut params);
            sql.push_str(lock);
            found.extend(conn.exec::<mysql_async::Row, _, _>(sql, params).await?);
        }
        Ok(found)
    }

    fn names(&self, columns: &[usize]) -> String {
        columns.iter().map(|column| quote_identifier(&self.columns[*column].name)).collect::<Vec<_>>().join(", ")
    }

    /// Reads the row of a key without locking it. Text comes as Unicode.
    pub async fn find(&self, conn: &mut Conn, key: &[&Cell]) -> Result<Option<Row>, mysql_async::Error> {
        let (mut condition, mut params) = (String::new(), Vec::new());
        self.push_key_condition(&[key], &mut condition, &mut params);
        self.find_where(conn, &condition, params).await
    }

    /// Reads a row that fulfils a condition, as [`TargetTable::find`].
    pub async fn find_where(
        &self,
        conn: &mut Conn,
        condition: &str,
        params: Vec<Param>,
    ) -> Result<Option<Row>, mysql_async::Error> {
        let sql = format!("SELECT {} FROM {} WHERE {condition}", self.plain_list, self.quoted);
        let row: Option<mysql_async::Row> = conn.exec_first(sql, params).await?;
        Ok(row.map(|row| self.cells(row, true).1))
    }

    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// Indexes of the key's columns.
    pub fn key(&self) -> &[usize] {
        &self.key
    }

    /// Deletes one row that equals the image in every column; for tables without a key.
    pub async fn delete_whole(&self, conn: &mut Conn, image: &Row) -> Result<(), mysql_async::Error> {
        let mut sql = format!("DELETE FROM {} WHERE ", self.quoted);
        let mut params = Vec::new();
        self.push_whole_condition(image, &mut sql, &mut params);
        sql.push_str(" LIMIT 1");
        conn.exec_drop(sql, params).await
    }

    /// Updates one row that equals the image in every column; for tables without a key.
    pub async fn update_whole(&self, conn: &mut Conn, before: &Row, after: &Row) -> Result<(), mysql_async::Error> {
        let (mut sql, mut params) = self.update_head(after);
        self.push_whole_condition(before, &mut sql, &mut params);
        sql.push_str(" LIMIT 1");
        self.exec_in_mode(conn, self.needs_lenient_mode(after), sql, params).await
    }

    fn push_whole_condition(&self, image: &Row, sql: &mut String, params: &mut Vec<Param>) {
        for (number, (cell, column)) in image.iter().zip(&self.columns).enumerate() {
            sql.push_str(if number > 0 { " AND " } else { "" });
            push_equals(cell, column, sql, params);
        }
    }

    /// Whether the server takes two keys for one, by the collations of the key's columns.
    pub async fn is_same_key(&self, conn: &mut Conn, a: &[&Cell], b: &[&Cell]) -> Result<bool, mysql_async::Error> {
        let mut sql = String::from("SELECT ");
        let mut params = Vec::new();
        for (number, ((a, b), index)) in a.iter().zip(b).zip(&self.key).enumerate() {
            let column = &self.columns[*index];
            sql.push_str(if number > 0 { " AND " } else { "" });
            let (mut left, mut right) = (placeholder(a, column), placeholder(b, column));
            if let (Some(charset), Some(collation)) = (&column.charset, &column.collation) {
                left = format!("CONVERT({left} USING {charset}) COLLATE {collation}").into();
                right = format!("CONVERT({right} USING {charset}) COLLATE {collation}").into();
            }
            sql.push_str(&format!("{left} = {right}"));
            push_params(a, column, &mut params);
            push_params(b, column, &mut params);
        }
        let same: Option<Option<bool>> = conn.exec_first(sql, params).await?;
        Ok(same.flatten().unwrap_or(false))
    }

    /// The key part of a row.
    pub fn key_of<'a>(&self, row: &'a Row) -> Vec<&'a Cell> {
        self.key.iter().map(|index| &row[*index]).collect()
    }

    fn needs_lenient_mode(&self, row: &Row) -> bool {
        row.iter().zip(&self.columns).any(|(cell, column)| needs_lenient_mode(cell, column))
    }

    /// Runs a statement that writes values, outside strict mode where one of them needs that.
    async fn exec_in_mode(
        &self,
        conn: &mut Conn,
        lenient: bool,
        sql: String,
        params: Vec<Param>,
    ) -> Result<(), mysql_async::Error> {
        self.packet.check(&params)?;
        if !lenient {
            return conn.exec_drop(sql, params).await;
        }
        set_sql_mode(conn, LENIENT_SQL_MODE).await?;
        let done = conn.exec_drop(sql, params).await;
        set_sql_mode(conn, STRICT_SQL_MODE).await?;
        done
    }

    fn chunk_len(&self, rows: &[&Row], width: usize) -> usize {
        let most = chunk_rows(rows.len(), width);
        let most_bytes = MAX_BYTES.min(self.packet.bytes() / 2);
        let (mut bytes, mut params) = (0, 0);
        let fitting = rows[..most]
            .iter()
            .take_while(|row| {
                bytes += row.iter().map(Cell::heap_bytes).sum::<usize>();
                params += row.iter().zip(&self.columns).map(|(cell, column)| param_count(cell, column)).sum::<usize>();
                bytes <= most_bytes && params <= MAX_PLACEHOLDERS
            })
            .count();
        floor_power_of_two(fitting.max(1))
    }
}

async fn set_sql_mode(conn: &mut Conn, mode: &str) -> Result<(), mysql_async::Error> {
    conn.exec_drop("SET SESSION sql_mode = ?", (mode,)).await
}

/// Text as a value of the column's own character set. Where a tuple is looked for among several, MariaDB 10.11 compares a text
/// of another character set without converting it, and finds nothing. Letters that are one byte everywhere are not at risk.
fn in_its_charset(cell: &Cell, column: &Column) -> Option<String> {
    let (Cell::Text(text), Some(charset), Some(collation)) = (cell, &column.charset, &column.collation) else {
        return None;
    };
    let is_unicode = matches!(charset.as_str(), "utf8mb4" | "utf8mb3" | "utf8");
    let is_single_byte = text.is_ascii() && !matches!(charset.as_str(), "utf16" | "utf16le" | "ucs2" | "utf32");
    (!is_unicode && !is_single_byte).then(|| format!("CONVERT(? USING {charset}) COLLATE {collation}"))
}

fn is_plain(cell: &Cell) -> bool {
    !matches!(cell, Cell::Encoded { .. } | Cell::Vector(_))
        && !matches!(cell, Cell::Json(document) if !document.opaque.is_empty())
}

fn plain_tuple(width: usize) -> String {
    format!("({})", vec!["?"; width].join(","))
}

fn chunk_rows(rows: usize, width: usize) -> usize {
    floor_power_of_two(rows.min(MAX_ROWS).min((MAX_PLACEHOLDERS / width.max(1)).max(1)))
}

/// Of so many tuples, how many go into the next condition. Indexes have few columns, so as many as are padded are far below
/// [`MAX_PLACEHOLDERS`].
pub(crate) fn condition_rows(rows: usize, width: usize) -> usize {
    if rows <= MAX_PADDED { rows } else { chunk_rows(rows, width) }
}

/// The items, and the last one again where they are few, so that few statements are prepared whatever their number: for what may be
/// said twice.
pub(crate) fn padded<T>(items: &[T]) -> impl ExactSizeIterator<Item = &T> {
    (0..padded_len(items.len())).map(|place| &items[place.min(items.len() - 1)])
}

/// One stays one: it has a condition of its own.
fn padded_len(items: usize) -> usize {
    match items {
        0..=1 | MAX_PADDED.. => items,
        2..=4 => 4,
        5..=16 => 16,
        _ => MAX_PADDED,
    }
}

fn floor_power_of_two(number: usize) -> usize {
    1 << number.max(1).ilog2()
}

/// Bytes that are equal for keys that are equal in every byte.
fn key_bytes<'a>(key: impl Iterator<Item = &'a Cell>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cell in key {
        // Debug text is exact for every kind; an integer reads the same whether the driver called it signed or not.
        match cell {
            Cell::Int(number) => bytes.extend_from_slice(number.to_string().as_bytes()),
            Cell::UInt(number) => bytes.extend_from_slice(number.to_string().as_bytes()),
            Cell::Text(text) => bytes.extend_from_slice(text.as_bytes()),
            Cell::Encoded { bytes: raw, .. } | Cell::Bytes(raw) => bytes.extend_from_slice(raw),
            other => bytes.extend_from_slice(format!("{other:?}").as_bytes()),
        }
        bytes.push(0xff);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn few_statements_are_prepared_whatever_number_of_rows_is_looked_for() {
        let mut sizes = BTreeSet::new();
        for rows in 1..=10_000 {
            let mut rest = rows;
            while rest > 0 {
                let asked = condition_rows(rest, 2);
                sizes.insert(padded_len(asked));
                rest -= asked;
            }
        }
        assert_eq!(sizes, [1, 4, 16, 64, 128, 256, 512].into());
    }

    #[test]
    fn a_condition_is_padded_with_its_last_row() {
        let column = |name: &str| Column::plain(name, ColumnKind::Integer { bytes: 4, unsigned: false });
        let table = |key: Vec<usize>| {
            let (columns, name) = (vec![column("a"), column("b")], TableName::new("s", "t"));
            let kinds: Vec<ColumnKind> = columns.iter().map(|column| column.kind.clone()).collect();
            TargetTable::new(&name, columns, &kinds, key, None, true, PacketLimit::new())
        };
        let cells: Vec<[Cell; 2]> = (1..=3).map(|number| [Cell::Int(number), Cell::Int(-number)]).collect();
        let asked = |table: &TargetTable, rows: usize| {
            let (mut sql, mut params) = (String::new(), Vec::new());
            let keys: Vec<Vec<&Cell>> =
                cells[..rows].iter().map(|row| table.key.iter().map(|index| &row[*index]).collect()).collect();
            table.push_key_condition(&keys.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut sql, &mut params);
            (sql, params.iter().map(|param| param.as_sql(true)).collect::<Vec<_>>().join(" "))
        };
        let expected = |sql: &str, params: &str| (sql.to_owned(), params.to_owned());
        assert_eq!(asked(&table(vec![0]), 1), expected("`a` IN (?)", "1"));
        assert_eq!(asked(&table(vec![0]), 3), expected("`a` IN (?,?,?,?)", "1 2 3 3"));
        assert_eq!(asked(&table(vec![0, 1]), 1), expected("`a` = ? AND `b` = ?", "1 -1"));
        assert_eq!(
            asked(&table(vec![0, 1]), 2),
            expected("(`a`, `b`) IN ((?,?),(?,?),(?,?),(?,?))", "1 -1 2 -2 2 -2 2 -2")
        );
    }
}
