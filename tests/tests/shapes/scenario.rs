//! Scripts of statements that are run on either side, and what both sides are asked afterwards.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_servers::Flavor;
use crossfade_testkit::quiet::Status;
use crossfade_testkit::sql;
use crossfade_tests::{Direction, Migration};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};

pub const QUIET_LIMIT: Duration = Duration::from_secs(60);

/// Tables and a script that writes them. In every statement
/// - `{t}` begins the names of tables, so that each scenario runs with a clock column (`c_`) and without one (`n_`),
/// - `{clock}` stands at the end of a table's columns,
/// - `{b}` is a digit that begins numbers and texts, so that the script can run several times.
pub struct Scenario {
    pub name: String,
    pub tables: Vec<String>,
    pub script: Vec<String>,
    /// Row changes that the script makes, as the server logs them.
    pub changes: u64,
    /// As `changes`, where MariaDB logs others.
    pub on_mariadb: Option<u64>,
}

impl Scenario {
    pub fn new(name: &str, tables: &[&str], script: &[&str], changes: u64) -> Scenario {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Scenario { name: name.to_owned(), tables: owned(tables), script: owned(script), changes, on_mariadb: None }
    }

    pub fn on_mariadb(self, changes: u64) -> Scenario {
        Scenario { on_mariadb: Some(changes), ..self }
    }

    fn changes_on(&self, flavor: Flavor) -> u64 {
        match (flavor, self.on_mariadb) {
            (Flavor::MariaDb, Some(changes)) => changes,
            _ => self.changes,
        }
    }
}

const CLOCK: &str = ", updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

/// With the clock, and without.
const VARIANTS: [(&str, &str); 2] = [("c_", CLOCK), ("n_", "")];

/// The `[[table]]` entries of both variants.
pub const TABLES: &str =
    "[[table]]\nname = \"{schema}.c_*\"\nclock = \"updated_at\"\n\n[[table]]\nname = \"{schema}.n_*\"\n";

pub async fn create(migration: &Migration, scenarios: &[Scenario]) -> Result<()> {
    let on_side = async |pool: &Pool| -> Result<()> {
        let mut conn = pool.get_conn().await?;
        conn.query_drop(format!("USE {}", sql::name(&migration.schema))).await?;
        for statement in scenarios.iter().flat_map(|scenario| &scenario.tables) {
            for (prefix, clock) in VARIANTS {
                let statement = statement.replace("{t}", prefix).replace("{clock}", clock);
                conn.query_drop(&statement).await.with_context(|| statement)?;
            }
        }
        // The schema of this session is gone from the server when a later test takes the connection from the pool.
        conn.disconnect().await?;
        Ok(())
    };
    tokio::try_join!(on_side(&migration.old), on_side(&migration.new))?;
    Ok(())
}

/// Runs every script on one side with a beginning of its own, each in a session of its own. Returns the row changes made.
pub async fn run(migration: &Migration, scenarios: &[Scenario], direction: Direction, begin: u32) -> Result<u64> {
    let (pool, flavor) = (source(migration, direction), migration.servers.flavor());
    let mut changes = 0;
    for scenario in scenarios {
        for (prefix, _) in VARIANTS {
            let mut conn = pool.get_conn().await?;
            conn.query_drop(format!("USE {}", sql::name(&migration.schema))).await?;
            for unit in units(&scenario.script) {
                let statements: Vec<String> = unit
                    .iter()
                    .map(|statement| statement.replace("{t}", prefix).replace("{b}", &begin.to_string()))
                    .collect();
                let ran = run_unit(&mut conn, &statements).await;
                ran.with_context(|| format!("{} on {flavor:?}", scenario.name))?;
            }
            conn.disconnect().await?;
            changes += scenario.changes_on(flavor);
        }
    }
    Ok(changes)
}

/// The statements of a transaction, or one alone.
fn units(script: &[String]) -> Vec<&[String]> {
    let mut units = Vec::new();
    let mut rest = script;
    while let Some(first) = rest.first() {
        let ends = |statement: &String| ["COMMIT", "ROLLBACK"].contains(&statement.as_str());
        let length = if first == "BEGIN" { rest.iter().position(ends).map_or(rest.len(), |end| end + 1) } else { 1 };
        let (unit, after) = rest.split_at(length);
        units.push(unit);
        rest = after;
    }
    units
}

/// As an application does, tries again what was chosen as a deadlock's victim.
async fn run_unit(conn: &mut Conn, statements: &[String]) -> Result<()> {
    let mut attempts = 0;
    'again: loop {
        for statement in statements {
            match conn.query_drop(statement).await {
                Err(error) if sql::is_rolled_back(&error) && attempts < 10 => {
                    attempts += 1;
                    continue 'again;
                }
                ran => ran.with_context(|| statement.clone())?,
            }
        }
        return Ok(());
    }
}

pub fn source(migration: &Migration, direction: Direction) -> &Pool {
    match direction {
        Direction::Forward => &migration.old,
        Direction::Reverse => &migration.new,
    }
}

/// Changes per table that a direction has captured, for messages.
pub async fn counted(migration: &Migration, direction: Direction) -> Result<String> {
    let stream = if direction == Direction::Forward { "forward/old" } else { "reverse/new" };
    let words = ["messages", "list", "--stream", stream, "--limit", "100000", "--json"];
    let list: serde_json::Value = serde_json::from_str(&migration.crossfade(&words).await?)?;
    let mut counts = std::collections::BTreeMap::new();
    for message in list.as_array().into_iter().flatten() {
        *counts.entry(format!("{} {}", message["table_name"], message["op"])).or_insert(0) += 1;
    }
    Ok(format!("{counts:?}"))
}

/// That so many changes were captured and applied each way, and that none is left behind.
pub fn crossed(status: &Status, forward: u64, reverse: u64) -> Result<()> {
    for (direction, changes) in [("forward", forward), ("reverse", reverse)] {
        // The processes count since their start, the store since the start mark.
        let applied = status.number(direction, "applied");
        ensure!(applied <= changes, "{direction} counted {applied} applied of {changes}: {}", status.0);
        for number in ["last_seq", "settled_seq"] {
            let found = status.number(direction, number);
            ensure!(found == changes, "{direction} has {number} {found}, not {changes}: {}", status.0);
        }
    }
    let left = status.total("open_failures") + status.total("held") + status.total("conflicts_lost");
    ensure!(left == 0, "changes were parked or lost: {}", status.0);
    Ok(())
}

/// That each side recognised what the other direction wrote there. Changes fold inside a batch, so echoes are fewer.
pub fn echoed(status: &Status) -> Result<()> {
    for direction in ["forward", "reverse"] {
        ensure!(status.number(direction, "echoes") > 0, "{direction} recognised no echo: {}", status.0);
    }
    Ok(())
}
