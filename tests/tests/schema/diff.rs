//! Each kind of difference is found and named, what is equal is not, and no secret is told.

use anyhow::{Context, Result, ensure};
use crossfade_tests::{Flavor, Migration, Setup};
use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::{TABLES, in_schema, json, says};

const ONLY_TABLES: [&str; 4] = ["schema", "diff", "--only", "tables"];

/// What is damaged on the new side, and as what it is found: kind, the end of the name, what differs.
const DAMAGES: [(&str, &str, &str, &str); 19] = [
    ("ALTER TABLE people MODIFY mail VARCHAR(191) CHARACTER SET latin1 NOT NULL", "column", ".people.mail", "type"),
    ("ALTER TABLE people MODIFY age INT NULL DEFAULT 1 COMMENT 'years? (whole)'", "column", ".people.age", "nullable"),
    ("ALTER TABLE people MODIFY age INT NOT NULL DEFAULT 2 COMMENT 'years? (whole)'", "column", ".people.age", "default"),
    ("ALTER TABLE people ALTER age DROP DEFAULT", "column", ".people.age", "default"),
    ("ALTER TABLE people MODIFY kind ENUM('a','it''s') NOT NULL DEFAULT 'it''s'", "column", ".people.kind", "type"),
    ("ALTER TABLE people ADD COLUMN more INT", "column", ".people.more", ""),
    ("ALTER TABLE people DROP COLUMN hidden", "column", ".people.hidden", ""),
    ("ALTER TABLE people MODIFY hidden INT DEFAULT 7", "column", ".people.hidden", "invisible"),
    ("ALTER TABLE badges MODIFY label CHAR(3) CHARACTER SET utf8mb4 NOT NULL", "column", ".badges.label", "character set"),
    ("ALTER TABLE people MODIFY updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)", "column", ".updated_at", "on update"),
    ("ALTER TABLE people MODIFY lower_mail VARCHAR(190) CHARACTER SET latin1 GENERATED ALWAYS AS (UPPER(mail)) STORED", "column",
        ".lower_mail", "generated"),
    ("ALTER TABLE people DROP KEY `by kind`", "key", ".people.by kind", ""),
    ("ALTER TABLE people DROP KEY `by kind`, ADD UNIQUE KEY `by kind` (kind, age DESC)", "key", ".by kind", "definition"),
    ("ALTER TABLE teams DROP FOREIGN KEY team_parent", "foreign key", ".teams.team_parent", ""),
    ("ALTER TABLE badges DROP FOREIGN KEY badge_person; ALTER TABLE badges ADD CONSTRAINT badge_person FOREIGN KEY (person_id) REFERENCES people (id)
        ON DELETE CASCADE", "foreign key", ".badge_person", "on delete"),
    ("ALTER TABLE people DROP CONSTRAINT old_enough", "check", ".people.old_enough", ""),
    ("ALTER TABLE events REORGANIZE PARTITION p2 INTO (PARTITION p2 VALUES LESS THAN (2030), PARTITION p3 VALUES LESS THAN MAXVALUE)",
        "table", ".events", "partitions"),
    ("ALTER TABLE people COMMENT = 'others'", "table", ".people", "comment"),
    ("DROP TABLE badges", "table", ".badges", ""),
];

async fn tables_on_both(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let migration = Migration::new(&Setup::new(flavor, name)).await?;
    migration.on_both(&in_schema(&TABLES)).await?;
    Ok(migration)
}

async fn drop_tables(migration: &Migration) -> Result<()> {
    let drop = [
        "SET foreign_key_checks = 0",
        "DROP TABLE IF EXISTS people, teams, events, badges",
        "SET foreign_key_checks = 1",
    ];
    migration.on(&migration.new, &in_schema(&drop)).await
}

fn has(report: &Value, kind: &str, name: &str, what: &str) -> bool {
    let differences = report["differences"].as_array().map(Vec::as_slice).unwrap_or_default();
    differences.iter().any(|difference| {
        let changes = difference["changes"].as_array().map(Vec::as_slice).unwrap_or_default();
        difference["kind"] == kind
            && difference["name"].as_str().is_some_and(|found| found.ends_with(name))
            && if what.is_empty() {
                difference["only_on"].is_string()
            } else {
                changes.iter().any(|change| change["what"] == what)
            }
    })
}

async fn each_difference_is_named(flavor: Flavor) -> Result<()> {
    let migration = tables_on_both(flavor, "diff_tables").await?;
    says(&migration, &ONLY_TABLES, 0, &["no difference", "4 tables"]).await?;
    // The next value that is handed out is no part of a definition.
    migration.on(&migration.new, &in_schema(&["INSERT INTO people (id, mail) VALUES (9999, 'x@y.z')"])).await?;
    for (damage, kind, name, what) in DAMAGES {
        drop_tables(&migration).await?;
        migration.on(&migration.new, &in_schema(&TABLES)).await?;
        let statements: Vec<&str> = damage.split("; ").collect();
        migration.on(&migration.new, &in_schema(&statements)).await.with_context(|| format!("{flavor:?}"))?;
        let (code, report) = json(&migration, &[&ONLY_TABLES[..], &["--json"]].concat()).await?;
        ensure!(code == Some(1) && has(&report, kind, name, what), "{flavor:?}: after {damage}: {code:?} {report:#}");
        let found = report["differences"].as_array().map_or(0, Vec::len);
        // A column that is gone takes its place in keys with it; nothing else may be told.
        ensure!(found == 1, "{flavor:?}: {damage} is told as {found} differences: {report:#}");
    }
    // In words, and of one table alone.
    let table = format!("{}.badges", migration.schema);
    says(
        &migration,
        &["schema", "diff", "--table", &table],
        1,
        &[&format!("table {table}: only on old"), "1 difference"],
    )
    .await?;
    let people = format!("{}.people", migration.schema);
    says(&migration, &["schema", "diff", "--table", &people], 0, &["no difference"]).await?;
    says(&migration, &["schema", "diff", "--table", "a.b"], 2, &["a.b", "hint:"]).await?;
    migration.forget();
    Ok(())
}

/// Views, routines, triggers, events and accounts, through a mapping that gives the schema another name.
async fn what_else_is_there_is_compared(flavor: Flavor) -> Result<()> {
    let shop = "{schema}_shop";
    let tables =
        format!("[[table]]\nold = \"{{schema}}.users\"\nnew = \"{shop}.people\"\ncolumns = {{ mail = \"email\" }}\n");
    let setup = Setup { tables, ..Setup::new(flavor, "diff_rest") };
    let migration = Migration::new(&setup).await?;
    let schema = migration.schema.clone();
    let user = format!("app_{}", &schema[schema.len().saturating_sub(12)..]);
    let both = |shop: &str, table: &str, mail: &str, new: bool| {
        let limit = if new { 2 } else { 1 };
        vec![
            format!("CREATE SCHEMA IF NOT EXISTS `{shop}` CHARACTER SET utf8mb4"),
            format!("USE `{shop}`"),
            format!("CREATE TABLE {table} (id INT PRIMARY KEY, {mail} VARCHAR(90), KEY by_mail ({mail}))"),
            format!("CREATE VIEW same AS SELECT id FROM {table} WHERE id > 1"),
            format!("CREATE VIEW other AS SELECT id FROM {table} WHERE id > {limit}"),
            format!("CREATE PROCEDURE total (IN a INT, OUT b INT) SET b = a + {limit}"),
            "CREATE FUNCTION twice (a INT) RETURNS INT DETERMINISTIC NO SQL RETURN a * 2".to_owned(),
            format!("CREATE TRIGGER early BEFORE INSERT ON {table} FOR EACH ROW SET NEW.id = NEW.id + {limit}"),
            format!(
                "CREATE EVENT nightly ON SCHEDULE EVERY {limit} DAY STARTS '2030-01-01 00:00:00' DISABLE DO SET @a = 1"
            ),
            format!("CREATE USER '{user}'@'%' IDENTIFIED BY 'Hush-hush{limit}'"),
            format!(
                "GRANT SELECT, {} ON `{}`.* TO '{user}'@'%'",
                if new { "INSERT" } else { "DELETE" },
                shop.replace('_', "\\_")
            ),
        ]
    };
    let old = both(&schema, "users", "mail", false);
    let new = both(&format!("{schema}_shop"), "people", "email", true);
    migration.on(&migration.old, &old.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    migration.on(&migration.new, &new.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    migration.on(&migration.old, &["USE {schema}", "CREATE VIEW only_old AS SELECT 1 AS one"]).await?;

    let (code, report) = json(&migration, &["schema", "diff", "--json"]).await?;
    ensure!(code == Some(1) && report["not_compared"] == Value::Array(Vec::new()), "{code:?} {report:#}");
    let expected = [
        ("view", ".other", "statement"),
        ("view", ".only_old", ""),
        ("procedure", ".total", "body"),
        ("trigger", ".early", "body"),
        ("event", ".nightly", "schedule"),
        ("account", user.as_str(), &format!("granted on {schema}_shop.*")),
    ];
    for (kind, name, what) in expected {
        let name = if kind == "account" { format!("{user}@%") } else { name.to_owned() };
        ensure!(has(&report, kind, &name, what), "{flavor:?}: {kind} {name} {what}: {report:#}");
    }
    for equal in [".same", ".twice", ".users", ".mail"] {
        let differs = |difference: &Value| difference["name"].as_str().is_some_and(|name| name.ends_with(equal));
        ensure!(
            !report["differences"].as_array().is_some_and(|all| all.iter().any(differs)),
            "{flavor:?}: {equal}: {report:#}"
        );
    }
    let words =
        says(&migration, &["schema", "diff"], 1, &["view", "only_old: only on old", "procedure", "nightly"]).await?;
    no_secret(&migration, &user, &[report.to_string(), words]).await?;
    an_account_that_may_little(&migration, flavor).await?;
    for pool in [&migration.old, &migration.new] {
        pool.get_conn().await?.query_drop(format!("DROP USER '{user}'@'%'")).await?;
    }
    migration.forget();
    Ok(())
}

/// What the servers keep of passwords is in nothing that is printed.
async fn no_secret(migration: &Migration, user: &str, printed: &[String]) -> Result<()> {
    for pool in [&migration.old, &migration.new] {
        let asked =
            format!("SELECT HEX(authentication_string), authentication_string FROM mysql.user WHERE user = '{user}'");
        let (hex, raw): (String, Vec<u8>) = pool.get_conn().await?.query_first(asked).await?.context("the account")?;
        ensure!(hex.len() > 20, "the account has no password");
        for text in printed {
            let raw = String::from_utf8_lossy(&raw).into_owned();
            ensure!(
                !text.contains(&raw) && !text.to_uppercase().contains(&hex) && !text.contains("Hush"),
                "a secret is told: {text}"
            );
        }
    }
    Ok(())
}

/// What may not be seen is told with its GRANT, and never taken for equal.
async fn an_account_that_may_little(migration: &Migration, flavor: Flavor) -> Result<()> {
    let name = format!("lt_{}", &migration.schema[migration.schema.len().saturating_sub(12)..]);
    let schema = &migration.schema;
    for (pool, schema) in [(&migration.old, schema.clone()), (&migration.new, format!("{schema}_shop"))] {
        let mut conn = pool.get_conn().await?;
        conn.query_drop(format!("CREATE USER '{name}'@'127.0.0.1' IDENTIFIED BY 'little'")).await?;
        conn.query_drop(format!("GRANT SELECT ON `{schema}`.* TO '{name}'@'127.0.0.1'")).await?;
    }
    let whole = std::fs::read_to_string(migration.config())?;
    let account =
        whole.lines().find(|line| line.starts_with("url")).and_then(|line| line.split("//").nth(1)?.split('@').next());
    let little = whole.replace(account.context("the account in the URL")?, &format!("{name}:little"));
    std::fs::write(migration.config(), little)?;
    let told = says(
        migration,
        &["schema", "diff"],
        1,
        &[
            "not compared on old, accounts",
            "not compared on old, triggers",
            "not compared on old, events",
            "not compared on old, routines",
            "not compared on old, views",
            "remedy: GRANT SELECT, SHOW VIEW ON",
        ],
    )
    .await?;
    println!("{flavor:?}: {told}");
    let (_, report) = json(migration, &["schema", "diff", "--json"]).await?;
    let unseen = report["not_compared"].as_array().map_or(0, Vec::len);
    ensure!(unseen >= 10, "five things on either side: {report:#}");
    // Each GRANT that is told helps.
    for told in report["not_compared"].as_array().into_iter().flatten() {
        let pool = if told["side"] == "old" { &migration.old } else { &migration.new };
        pool.get_conn()
            .await?
            .query_drop(told["remedy"].as_str().unwrap_or_default())
            .await
            .with_context(|| told.to_string())?;
    }
    let (_, report) = json(migration, &["schema", "diff", "--json"]).await?;
    ensure!(report["not_compared"] == Value::Array(Vec::new()), "{report:#}");
    std::fs::write(migration.config(), whole)?;
    for pool in [&migration.old, &migration.new] {
        pool.get_conn().await?.query_drop(format!("DROP USER '{name}'@'127.0.0.1'")).await?;
    }
    Ok(())
}

crossfade_tests::on_both_brands! {
    each_difference_is_named => each_difference_is_named,
    what_else_is_there_is_compared => what_else_is_there_is_compared,
}
