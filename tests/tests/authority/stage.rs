//! Users with orders and items, and notes of nobody.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_applier::give_authority;
use crossfade_model::{Direction as Way, EntityKey, Given, Side, StreamId};
use crossfade_tests::{Direction, Flavor, Migration, Setup, json};
use mysql_async::Pool;
use mysql_async::prelude::Queryable;

pub const LIMIT: Duration = Duration::from_secs(120);

const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

const TABLES: &str = "[[table]]\nname = \"{schema}.*\"\nclock = \"updated_at\"\n\
    [entity]\nname = \"user\"\nallow_on_old = [\"password\", \"banned\", \"email\"]\n\
    [[entity.table]]\nname = \"{schema}.users\"\nkey = \"id\"\n\
    [[entity.table]]\nname = \"{schema}.orders\"\nkey = \"user_id\"\n\
    [[entity.table]]\nname = \"{schema}.items\"\nparent = \"{schema}.orders\"\nvia = \"order_id\"\n";

/// Users 1 to 9; user n has order n0 with items n01 and n02.
pub async fn shop(flavor: Flavor, name: &'static str) -> Result<Migration> {
    let setup = Setup { tables: TABLES.to_owned(), ..Setup::new(flavor, name) };
    let mut migration = Migration::new(&setup).await?;
    migration
        .on_both(&[
            &format!(
                "CREATE TABLE {{schema}}.users (id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, email VARCHAR(40) NULL UNIQUE, \
                 password VARCHAR(40) NOT NULL DEFAULT 'p0', banned INT NOT NULL DEFAULT 0, {CLOCK})"
            ),
            &format!(
                "CREATE TABLE {{schema}}.orders (id INT PRIMARY KEY, user_id INT NOT NULL, note VARCHAR(40) NOT NULL, {CLOCK}, \
                 FOREIGN KEY (user_id) REFERENCES users (id))"
            ),
            &format!(
                "CREATE TABLE {{schema}}.items (id INT PRIMARY KEY, order_id INT NOT NULL, what VARCHAR(40) NOT NULL, {CLOCK}, \
                 FOREIGN KEY (order_id) REFERENCES orders (id) ON DELETE CASCADE)"
            ),
            &format!("CREATE TABLE {{schema}}.notes (id INT PRIMARY KEY, text VARCHAR(40) NOT NULL, {CLOCK})"),
        ])
        .await?;
    migration.init().await?;
    migration.start_both().await?;
    for user in 1..=9 {
        migration
            .on(&migration.old, &[
                &format!("INSERT INTO {{schema}}.users (id, name, email) VALUES ({user}, 'ann', 'mail{user}')"),
                &format!("INSERT INTO {{schema}}.orders (id, user_id, note) VALUES ({user}0, {user}, 'first')"),
                &format!(
                    "INSERT INTO {{schema}}.items (id, order_id, what) VALUES ({user}01, {user}0, 'a'), ({user}02, {user}0, 'b')"
                ),
                &format!("INSERT INTO {{schema}}.notes (id, text) VALUES ({user}, 'x')"),
            ])
            .await?;
    }
    migration.until_quiet_and_equal(LIMIT).await?;
    Ok(migration)
}

/// Gives authority over a user on one node.
pub async fn give_on(migration: &Migration, node: Side, given: &[Given]) -> Result<()> {
    // A side is told as the target of the stream that leads to it.
    let (pool, way) = match node {
        Side::Old => (&migration.old, Way::Reverse),
        Side::New => (&migration.new, Way::Forward),
    };
    let stream = StreamId::new(way, way.source().as_str());
    let mut conn = pool.get_conn().await?;
    give_authority(&mut conn, &migration.pair, &stream, given).await?;
    Ok(())
}

/// Gives a side authority over a user, on both nodes.
pub async fn give(migration: &Migration, user: u32, side: Side, version: u64) -> Result<()> {
    let given = given(user, side, version)?;
    for node in [Side::Old, Side::New] {
        give_on(migration, node, std::slice::from_ref(&given)).await?;
    }
    Ok(())
}

pub fn given(user: u32, side: Side, version: u64) -> Result<Given> {
    let entity = EntityKey::parse(&user.to_string()).context("no key")?;
    Ok(Given { entity, side, version })
}

/// All is applied and undone, and both sides are equal; returns what was lost for want of authority, in the order of the
/// streams, as `stream table status`.
pub async fn settled(migration: &Migration) -> Result<Vec<String>> {
    migration.until_quiet_and_equal(LIMIT).await?;
    let (code, conflicts) = json(migration, &["messages", "list", "--conflicts", "--json", "--limit", "10000"]).await?;
    ensure!(code == Some(0), "{conflicts:#}");
    let conflicts = conflicts.as_array().context("no list of conflicts")?;
    let mut lost = Vec::new();
    for conflict in conflicts {
        let reason = conflict["reason"].as_str().unwrap_or_default();
        if reason.starts_with("authority: ") {
            let has_image = !conflict["before_image"].is_null() || !conflict["after_image"].is_null();
            ensure!(has_image, "a conflict without images: {conflict:#}");
            let text = |field: &str| conflict[field].as_str().unwrap_or_default().to_owned();
            lost.push(format!("{} {} {}: {reason}", text("stream"), text("table_name"), text("status")));
        }
    }
    Ok(lost)
}

/// One value, as text, on both sides alike.
pub async fn value(migration: &Migration, question: &str) -> Result<Option<String>> {
    let question = question.replace("{schema}", &format!("`{}`", migration.schema));
    let mut found = Vec::new();
    for pool in [&migration.old, &migration.new] {
        let answer: Option<Option<String>> = pool.get_conn().await?.query_first(&question).await?;
        found.push(answer.flatten());
    }
    ensure!(found[0] == found[1], "{question}: {found:?}");
    Ok(found.remove(0))
}

/// `name email password banned` of a user.
pub async fn user(migration: &Migration, id: u32) -> Result<Option<String>> {
    let question =
        format!("SELECT CONCAT_WS(' ', name, email, password, banned) FROM {{schema}}.users WHERE id = {id}");
    value(migration, &question).await
}

pub fn pool(migration: &Migration, side: Side) -> &Pool {
    match side {
        Side::Old => &migration.old,
        Side::New => &migration.new,
    }
}

/// What must be empty.
pub async fn nothing_aside(migration: &Migration) -> Result<()> {
    let status = migration.status().read().await?;
    for direction in Direction::BOTH {
        let open = status.number(direction.as_str(), "open_failures") + status.number(direction.as_str(), "held");
        ensure!(open == 0, "{open} changes are aside: {}", status.0);
    }
    Ok(())
}
