//! Every column type, written on either side, is equal on the other: inserted, updated from and to every value, deleted.

mod cases;
mod documents;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use cases::Case;
use crossfade_servers::Flavor;
use crossfade_testkit::compare::Comparison;
use crossfade_testkit::quiet::Status;
use crossfade_testkit::sql;
use crossfade_tests::{Migration, Setup};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};

const QUIET_LIMIT: Duration = Duration::from_secs(60);
/// Rows written on new are numbered from here.
const NEW_IDS: usize = 1_000;
/// Accepts zero dates, ENUM 0 and values that are cut: whatever a column can hold shall travel.
const WRITER: &str = "SET NAMES utf8mb4, time_zone = '+00:00', sql_mode = 'NO_AUTO_VALUE_ON_ZERO'";
const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

/// A line of the printed matrix.
#[derive(Debug, Default, Clone)]
struct Line {
    tables: usize,
    /// Row changes made by writers, on both sides.
    inserted: usize,
    updated: usize,
    deleted: usize,
    /// Rows that were compared after inserts and after updates, and how many were equal.
    compared: u64,
    equal: u64,
}

async fn matrix(flavor: Flavor) -> Result<()> {
    let mut migration = Migration::new(&Setup::new(flavor, "types")).await?;
    let cases = all_cases(&migration, flavor).await?;
    create(&migration, &cases).await?;
    migration.init().await?;
    migration.start_both().await?;

    let mut lines: BTreeMap<String, Line> = BTreeMap::new();
    let (old, new) = (migration.old.clone(), migration.new.clone());
    tokio::try_join!(insert(&old, &migration.schema, &cases, 1), insert(&new, &migration.schema, &cases, NEW_IDS))?;
    count(&mut lines, &cases, |line, rows| line.inserted += 2 * rows);
    compare(&migration, &cases, &mut lines).await?;
    let documents = documents_are_equal(&migration, flavor, &cases).await?;

    // Each side updates the rows that the other one made, so every value is a before image and an after image.
    tokio::try_join!(update(&old, &migration.schema, &cases, NEW_IDS), update(&new, &migration.schema, &cases, 1))?;
    count(&mut lines, &cases, |line, rows| line.updated += 2 * rows);
    compare(&migration, &cases, &mut lines).await?;
    let documents_again = documents_are_equal(&migration, flavor, &cases).await?;

    // Each row is deleted on one side only.
    tokio::try_join!(delete(&old, &migration.schema, &cases, 0), delete(&new, &migration.schema, &cases, 1))?;
    count(&mut lines, &cases, |line, rows| line.deleted += 2 * rows);
    let (status, comparison) = quiet(&migration).await?;
    for table in &comparison.tables {
        ensure!(table.rows_old + table.rows_new == 0, "{} still has rows on a side", table.name);
    }

    print(&migration, &lines, &status);
    println!("JSON paths after inserts {documents:?}, after updates {documents_again:?}");
    judge(flavor, &lines, &status)?;
    migration.stop_both().await
}

fn judge(flavor: Flavor, lines: &BTreeMap<String, Line>, status: &Status) -> Result<()> {
    let least_types = match flavor {
        Flavor::MySql => 110,
        Flavor::MariaDb => 105,
    };
    ensure!(lines.len() >= least_types, "only {} lines in the matrix", lines.len());
    let mut changes = 0;
    for (group, line) in lines {
        ensure!(
            line.inserted > 0 && line.updated == line.inserted && line.deleted == line.inserted,
            "{group}: {line:?}"
        );
        ensure!(line.compared == 2 * line.inserted as u64, "{group} was not compared: {line:?}");
        ensure!(line.equal == line.compared, "{group} differs: {line:?}");
        changes += (line.inserted + line.updated + line.deleted) as u64;
    }
    // Half of the changes were made on each side; each is captured once, applied once, and recognised as an echo once.
    for direction in ["forward", "reverse"] {
        for number in ["last_seq", "settled_seq"] {
            let found = status.number(direction, number);
            ensure!(found == changes / 2, "{direction} has {number} {found}, not {}: {}", changes / 2, status.0);
        }
        let echoes = status.number(direction, "echoes");
        ensure!(echoes > changes / 4, "{direction} recognised only {echoes} echoes: {}", status.0);
    }
    ensure!(status.total("open_failures") == 0 && status.total("held") == 0, "rows were parked: {}", status.0);
    ensure!(status.total("conflicts_lost") == 0, "nothing was in conflict: {}", status.0);
    Ok(())
}

async fn all_cases(migration: &Migration, flavor: Flavor) -> Result<Vec<Case>> {
    let mut cases = cases::plain(flavor);
    if flavor == Flavor::MySql {
        cases.push(documents::case());
    }
    let mut conn = writer(&migration.old).await?;
    let charsets: Vec<(String, u64)> = conn
        .query(
            "SELECT character_set_name AS name, maxlen AS bytes FROM information_schema.character_sets \
             WHERE character_set_name <> 'binary' ORDER BY 1",
        )
        .await?;
    ensure!(charsets.len() >= 39, "servers have about forty character sets, this one {}", charsets.len());
    for (name, max_len) in charsets {
        for (sample, letter) in cases::SAMPLES {
            let holds: Option<Option<bool>> = conn
                .query_first(format!(
                    "SELECT CONVERT(CONVERT('{sample}' USING {name}) USING utf8mb4) = '{sample}' COLLATE utf8mb4_bin"
                ))
                .await?;
            if holds == Some(Some(true)) {
                cases.extend(cases::charset(&name, max_len, sample, letter));
                break;
            }
        }
    }
    Ok(cases)
}

async fn writer(pool: &Pool) -> Result<Conn> {
    let mut conn = pool.get_conn().await?;
    conn.query_drop(WRITER).await?;
    Ok(conn)
}

fn table(schema: &str, number: usize) -> String {
    sql::full_name(schema, &table_name(number))
}

fn table_name(number: usize) -> String {
    format!("t{number:03}")
}

async fn create(migration: &Migration, cases: &[Case]) -> Result<()> {
    let on_side = async |pool: &Pool| -> Result<()> {
        let mut conn = writer(pool).await?;
        for (number, case) in cases.iter().enumerate() {
            let columns: Vec<String> =
                case.columns.iter().enumerate().map(|(place, column)| format!("c{place} {column}")).collect();
            let statement = format!(
                "CREATE TABLE {} (id INT PRIMARY KEY, {}, note INT NOT NULL DEFAULT 0, {CLOCK})",
                table(&migration.schema, number),
                columns.join(", ")
            );
            conn.query_drop(&statement).await.with_context(|| statement)?;
        }
        Ok(())
    };
    tokio::try_join!(on_side(&migration.old), on_side(&migration.new))?;
    Ok(())
}

async fn insert(pool: &Pool, schema: &str, cases: &[Case], first_id: usize) -> Result<()> {
    let mut conn = writer(pool).await?;
    for (number, case) in cases.iter().enumerate() {
        let names: Vec<String> = (0..case.written).map(|place| format!("c{place}")).collect();
        let rows: Vec<String> =
            case.rows.iter().zip(first_id..).map(|(values, id)| format!("({id}, {})", values.join(", "))).collect();
        let into = format!("INSERT INTO {} (id, {}) VALUES ", table(schema, number), names.join(", "));
        conn.query_drop(into + &rows.join(", ")).await.with_context(|| format!("{}: insert", case.columns[0]))?;
    }
    Ok(())
}

/// Gives every row from `first_id` on the values of the next one.
async fn update(pool: &Pool, schema: &str, cases: &[Case], first_id: usize) -> Result<()> {
    let mut conn = writer(pool).await?;
    for (number, case) in cases.iter().enumerate() {
        conn.query_drop("BEGIN").await?;
        for place in 0..case.rows.len() {
            let values = &case.rows[(place + 1) % case.rows.len()];
            let sets: Vec<String> =
                values.iter().enumerate().map(|(column, value)| format!("c{column} = {value}")).collect();
            let of_row = format!("note = note + 1 WHERE id = {}", first_id + place);
            let statement = format!("UPDATE {} SET {}, {of_row}", table(schema, number), sets.join(", "));
            conn.query_drop(statement).await.with_context(|| format!("{}: update", case.columns[0]))?;
        }
        conn.query_drop("COMMIT").await?;
    }
    Ok(())
}

async fn delete(pool: &Pool, schema: &str, cases: &[Case], rest: u32) -> Result<()> {
    let mut conn = writer(pool).await?;
    for number in 0..cases.len() {
        conn.query_drop(format!("DELETE FROM {} WHERE id % 2 = {rest}", table(schema, number))).await?;
    }
    Ok(())
}

fn count(lines: &mut BTreeMap<String, Line>, cases: &[Case], add: impl Fn(&mut Line, usize)) {
    for case in cases {
        add(lines.entry(case.group.clone()).or_default(), case.rows.len());
    }
}

async fn quiet(migration: &Migration) -> Result<(Status, Comparison)> {
    let status = migration.status().until_quiet(QUIET_LIMIT).await.with_context(|| migration.log_ends())?;
    Ok((status, migration.compare().await?))
}

/// Adds what the judge finds to the lines; differences are shown here and counted at the end.
async fn compare(migration: &Migration, cases: &[Case], lines: &mut BTreeMap<String, Line>) -> Result<()> {
    let (_, comparison) = quiet(migration).await?;
    for (number, case) in cases.iter().enumerate() {
        let name = format!("{}.{}", migration.schema, table_name(number));
        let found = comparison.tables.iter().find(|table| table.name == name).context("a table was not compared")?;
        let line = lines.entry(case.group.clone()).or_default();
        line.tables = cases.iter().filter(|other| other.group == case.group).count();
        line.compared += found.rows_compared;
        line.equal += found.rows_compared.saturating_sub(found.differences());
        if !found.is_equal() {
            eprintln!("{} ({}): {found:?}", case.group, case.columns.join(", "));
        }
    }
    Ok(())
}

/// That the types inside documents arrive too, which their text does not show.
async fn documents_are_equal(
    migration: &Migration,
    flavor: Flavor,
    cases: &[Case],
) -> Result<Option<documents::Paths>> {
    if flavor != Flavor::MySql {
        return Ok(None);
    }
    let (number, case) =
        cases.iter().enumerate().find(|(_, case)| case.group == "JSON").context("there is no JSON case")?;
    let column = format!("c{}", case.columns.len() - 1);
    let table = table(&migration.schema, number);
    let paths = documents::compare(&migration.old, &migration.new, &table, &column).await?;
    ensure!(paths.compared > 500 && paths.beyond_text > 40, "too few paths: {paths:?}");
    ensure!(paths.equal == paths.compared, "documents differ: {paths:?}");
    Ok(Some(paths))
}

fn print(migration: &Migration, lines: &BTreeMap<String, Line>, status: &Status) {
    println!("\ntype matrix, {}, both directions", migration.servers.old().version());
    println!(
        "{:<24} {:>7} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "type", "tables", "inserted", "updated", "deleted", "compared", "equal"
    );
    let mut all = Line::default();
    for (group, line) in lines {
        print_line(group, line);
        all.tables += line.tables;
        all.inserted += line.inserted;
        all.updated += line.updated;
        all.deleted += line.deleted;
        all.compared += line.compared;
        all.equal += line.equal;
    }
    print_line("all", &all);
    println!(
        "changes captured {}, applied {}, echoes recognised {}",
        status.total("last_seq"),
        status.total("settled_seq"),
        status.total("echoes")
    );
}

fn print_line(group: &str, line: &Line) {
    let Line { tables, inserted, updated, deleted, compared, equal } = line;
    println!("{group:<24} {tables:>7} {inserted:>9} {updated:>9} {deleted:>9} {compared:>9} {equal:>9}");
}

#[tokio::test]
async fn p4_every_type_is_equal_on_mysql() -> Result<()> {
    matrix(Flavor::MySql).await
}

#[tokio::test]
async fn p4_every_type_is_equal_on_mariadb() -> Result<()> {
    matrix(Flavor::MariaDb).await
}
