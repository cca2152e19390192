//! Groups of tables change sides one after the other, and each user writes where the flag of the group says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use crossfade_flag::{FlagClient, Side};
use crossfade_testkit::quiet::{Progress, until};
use crossfade_tests::{Flavor, Migration, Served, Setup, on_both_brands, says};
use mysql_async::prelude::Queryable;
use mysql_async::{Conn, Pool};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::finish::rows_of_pair;
use crate::stage::{LIMIT, change, setup};

const CLOCK: &str = "updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)";

const OF_BILLING: &str = "group = \"billing\"";

fn setup_of_groups(flavor: Flavor, name: &'static str) -> Setup {
    let table =
        |name: &str, more: &str| format!("[[table]]\nname = \"{{schema}}.{name}\"\nclock = \"updated_at\"\n{more}\n");
    let tables = [table("item", ""), table("invoice", OF_BILLING), table("line", OF_BILLING)].concat();
    Setup { tables, ..setup(flavor, name, "require_instances = false\ntimeout = \"60s\"") }
}

async fn staged(setup: &Setup) -> Result<Migration> {
    let mut migration = Migration::new(setup).await?;
    let tables = [
        format!("CREATE TABLE {{schema}}.item (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL, {CLOCK}) ENGINE = InnoDB"),
        format!("CREATE TABLE {{schema}}.invoice (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, n INT NOT NULL, {CLOCK}) ENGINE = InnoDB"),
        format!(
            "CREATE TABLE {{schema}}.line (id BIGINT UNSIGNED PRIMARY KEY AUTO_INCREMENT, invoice_id BIGINT UNSIGNED NOT NULL, {CLOCK},
               FOREIGN KEY (invoice_id) REFERENCES invoice (id)) ENGINE = InnoDB"
        ),
    ];
    migration.on_both(&tables.each_ref().map(String::as_str)).await?;
    migration.init().await?;
    migration.start_both().await?;
    migration.crossfade(&["verify"]).await?;
    migration.crossfade(&["flag", "set", "write_both"]).await?;
    Ok(migration)
}

/// A user of one table, who counts up; an invoice has a line.
struct User {
    client: FlagClient,
    table: &'static str,
    schema: String,
    old: Pool,
    new: Pool,
    written: Arc<AtomicU64>,
}

/// What was acknowledged: each number, with the side that it was written to.
type Ledger = BTreeMap<i32, Side>;

impl User {
    async fn run(self, stop: watch::Receiver<bool>) -> Result<Ledger> {
        let mut ledger = Ledger::new();
        for n in 1.. {
            if *stop.borrow() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            let guard = self.client.begin_write().await?;
            let pool = if guard.side() == Side::New { &self.new } else { &self.old };
            let mut conn = pool.get_conn().await?;
            self.write(&mut conn, n).await?;
            if guard.is_still_valid() {
                conn.query_drop("COMMIT").await?;
                ledger.insert(n, guard.side());
                self.written.fetch_add(1, Ordering::Relaxed);
            } else {
                conn.query_drop("ROLLBACK").await?;
            }
        }
        self.client.close().await;
        Ok(ledger)
    }

    async fn write(&self, conn: &mut Conn, n: i32) -> Result<()> {
        let User { schema, table, .. } = self;
        conn.query_drop("BEGIN").await?;
        conn.query_drop(format!("INSERT INTO `{schema}`.{table} (n) VALUES ({n})")).await?;
        if *table == "invoice" {
            conn.query_drop(format!("INSERT INTO `{schema}`.line (invoice_id) VALUES (LAST_INSERT_ID())")).await?;
        }
        Ok(())
    }
}

/// One user of each table.
struct Users {
    stop: watch::Sender<bool>,
    written: [Arc<AtomicU64>; 2],
    at_work: [JoinHandle<Result<Ledger>>; 2],
}

impl Users {
    async fn start(migration: &Migration, url: &str) -> Result<Users> {
        let (stop, stopped) = watch::channel(false);
        let written = [Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0))];
        let start = async |table: &'static str, url: String, pair: String, written: &Arc<AtomicU64>| -> Result<_> {
            let client = FlagClient::builder(url).instance(table).pair(pair).connect().await?;
            let (old, new) = (migration.old.clone(), migration.new.clone());
            let user = User { client, table, schema: migration.schema.clone(), old, new, written: written.clone() };
            Ok(tokio::spawn(user.run(stopped.clone())))
        };
        let pair = &migration.pair;
        let item = start("item", url.to_owned(), pair.clone(), &written[0]).await?;
        let of_billing = (format!("{url}/groups/billing"), format!("{pair}/billing"));
        let invoice = start("invoice", of_billing.0, of_billing.1, &written[1]).await?;
        Ok(Users { stop, written, at_work: [item, invoice] })
    }

    async fn write_for_a_while(&self) -> Result<()> {
        for written in &self.written {
            until_more(written, 20).await?;
        }
        Ok(())
    }

    async fn finish(self) -> Result<[Ledger; 2]> {
        self.stop.send_replace(true);
        let [item, invoice] = self.at_work;
        Ok([item.await??, invoice.await??])
    }
}

async fn until_more(written: &AtomicU64, more: u64) -> Result<()> {
    let wanted = written.load(Ordering::Relaxed) + more;
    until("writes of users", LIMIT, || async {
        let now = written.load(Ordering::Relaxed);
        Ok(if now >= wanted { Progress::Reached(()) } else { Progress::NotYet(format!("{now} of {wanted}")) })
    })
    .await
}

/// The flags of all and of the group, on a side's node.
async fn on_node(migration: &Migration, pool: &Pool) -> Result<[Option<u8>; 2]> {
    let mut conn = pool.get_conn().await?;
    let mut found = [None, None];
    for (place, key) in found.iter_mut().zip([migration.pair.clone(), format!("{}/billing", migration.pair)]) {
        *place = conn.exec_first("SELECT flag FROM crossfade.flag WHERE pair = ?", (key,)).await?;
    }
    Ok(found)
}

async fn until_on_nodes(migration: &Migration, wanted: [u8; 2]) -> Result<()> {
    until("the flags on both nodes", LIMIT, || async {
        let found = [on_node(migration, &migration.old).await?, on_node(migration, &migration.new).await?];
        let is_there = found.iter().all(|one| *one == wanted.map(Some));
        Ok(if is_there { Progress::Reached(()) } else { Progress::NotYet(format!("{found:?}, not {wanted:?}")) })
    })
    .await
}

async fn one_after_the_other(flavor: Flavor) -> Result<()> {
    let migration = staged(&setup_of_groups(flavor, "groups")).await?;
    let served = Served::start(&migration).await?;
    let users = Users::start(&migration, &served.url()).await?;
    users.write_for_a_while().await?;
    until_on_nodes(&migration, [1, 1]).await?;

    // While they are kept from writing, the others write on.
    let billing = &["cutover", "--group", "billing"][..];
    let freeze = [("CROSSFADE_FAILPOINT", "switch-drain:1:stop")];
    let mut tool = migration.tool("tool", billing, &freeze)?;
    tool.until_frozen(LIMIT).await?;
    let fenced_at = users.written[1].load(Ordering::Relaxed);
    until_more(&users.written[0], 20).await?;
    ensure!(users.written[1].load(Ordering::Relaxed) == fenced_at, "invoices were written under their fence");
    for (table, next) in [("item", 100_000), ("invoice", 200_000)] {
        let raise = format!("ALTER TABLE {{schema}}.{table} AUTO_INCREMENT = {next}");
        migration.on(&migration.old, &[&raise]).await?;
    }
    tool.resume()?;
    let status = tool.wait(LIMIT).await?;
    ensure!(status.success(), "{status}\n{}", tool.log_end());
    let mut conn = migration.new.get_conn().await?;
    let told: Vec<String> = conn
        .exec("SELECT memory FROM crossfade.switch_run WHERE pair = ? AND state = 'done'", (&migration.pair,))
        .await?;
    drop(conn);
    let told = told.concat();
    ensure!(told.contains(".invoice from 200000") && !told.contains(".item from"), "{told}");
    users.write_for_a_while().await?;
    until_on_nodes(&migration, [1, 2]).await?;
    says(&migration, &["status"], 0, &["phase write_both, flag 1", "group billing: phase read_new, flag 2"]).await?;
    says(&migration, &["flag", "get", "--group", "billing"], 0, &["read_new", "written to new", "invoice"]).await?;
    // What is for all waits for the group.
    says(&migration, &["flag", "set", "old_only"], 1, &["sides of groups", "`crossfade rollback --group billing`"])
        .await?;
    says(&migration, &["abort", "--dry-run"], 1, &["`crossfade rollback --group billing`"]).await?;

    // It goes back while the others stay; then these change sides, and the end waits for it.
    let back = change(&migration, &["rollback", "--group", "billing"], 0).await?;
    ensure!(back["group"] == "billing" && back["phase"] == "write_both", "{back:#}");
    users.write_for_a_while().await?;
    let rest = change(&migration, &["cutover"], 0).await?;
    ensure!(rest["group"].is_null() && rest["phase"] == "read_new", "{rest:#}");
    users.write_for_a_while().await?;
    until_on_nodes(&migration, [2, 1]).await?;
    says(&migration, &["finish", "--dry-run"], 1, &["sides of groups", "`crossfade cutover --group billing`"]).await?;

    // Killed under its fence; whoever changes sides next undoes that first, whatever he changes.
    let kill = [("CROSSFADE_FAILPOINT", "switch-drain")];
    let (code, told) = migration.crossfade_with(billing, &kill).await?;
    ensure!(code.is_none(), "{code:?}\n{told}");
    says(&migration, &["flag", "get", "--group", "billing"], 0, &["fenced"]).await?;
    let told = says(&migration, &["rollback"], 0, &["cutover", "of billing was left behind at step `drain`"]).await?;
    ensure!(told.contains("users read and write old"), "{told}");
    says(&migration, &["flag", "get", "--group", "billing"], 0, &["written to old"]).await?;
    users.write_for_a_while().await?;
    change(&migration, billing, 0).await?;
    change(&migration, &["cutover"], 0).await?;
    users.write_for_a_while().await?;

    let folder = migration.folder.join("reports");
    let ended = change(&migration, &["finish", "--report", &folder.to_string_lossy()], 0).await?;
    ensure!(ended["phase"] == "new_only" && ended["state"] == "done", "{ended:#}");
    until_on_nodes(&migration, [3, 3]).await?;
    users.write_for_a_while().await?;
    let ledgers = users.finish().await?;
    let sides = ledgers.each_ref().map(|ledger| {
        let on_new = ledger.values().filter(|side| **side == Side::New).count();
        format!("{} writes, {on_new} of them on new", ledger.len())
    });
    println!("{flavor:?}: items {}; invoices {}", sides[0], sides[1]);
    has_all(&migration, &ledgers).await?;
    let other = format!("{}-x", migration.pair);
    let others = format!("INSERT INTO crossfade.heartbeat VALUES ('{other}', 'test', 1, NOW(6))");
    migration.on_both(&[&others]).await?;
    let removed = ["finish", "--drop-schemas", "--yes", "--report", &folder.to_string_lossy()];
    migration.crossfade(&removed).await?;
    for pool in [&migration.old, &migration.new] {
        for gone in [migration.pair.clone(), format!("{}/billing", migration.pair)] {
            ensure!(rows_of_pair(pool, &gone).await? == 0, "rows of {gone} are left");
        }
        ensure!(rows_of_pair(pool, &other).await? == 1, "another pair's row is gone");
        migration.on(pool, &[&format!("DELETE FROM crossfade.heartbeat WHERE pair = '{other}'")]).await?;
    }
    migration.forget();
    Ok(())
}

/// New has all that was acknowledged, and was written there at some time each.
async fn has_all(migration: &Migration, ledgers: &[Ledger; 2]) -> Result<()> {
    for (table, ledger) in ["item", "invoice"].into_iter().zip(ledgers) {
        let mut conn = migration.new.get_conn().await?;
        let found: Vec<i32> = conn.query(format!("SELECT n FROM `{}`.{table}", migration.schema)).await?;
        let missing: Vec<&i32> = ledger.keys().filter(|n| !found.contains(n)).collect();
        ensure!(missing.is_empty(), "{table}: {missing:?} were acknowledged, and are not there");
        for side in [Side::Old, Side::New] {
            ensure!(ledger.values().any(|on| *on == side), "{table}: nothing was written on {side:?}");
        }
    }
    let mut conn = migration.new.get_conn().await?;
    let without = "SELECT COUNT(*) FROM {schema}.invoice LEFT JOIN {schema}.line ON line.invoice_id = invoice.id WHERE line.id IS NULL";
    let without: Option<u64> =
        conn.query_first(without.replace("{schema}", &format!("`{}`", migration.schema))).await?;
    ensure!(without == Some(0), "{without:?} invoices are without a line");
    Ok(())
}

/// What refers to each other changes sides together.
async fn a_group_must_be_closed(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup_of_groups(flavor, "open_group")).await?;
    says(&migration, &["cutover", "--group", "other", "--dry-run"], 2, &["no group `other`", "groups: billing"])
        .await?;
    let dry = &["cutover", "--group", "billing", "--dry-run"][..];
    says(&migration, dry, 0, &["group billing refers to no table outside"]).await?;
    let configuration = std::fs::read_to_string(migration.config())?;
    let (before, _) = configuration.rsplit_once(OF_BILLING).context("no group")?;
    let rest = &configuration[before.len() + OF_BILLING.len()..];
    std::fs::write(migration.config(), format!("{before}{rest}"))?;
    let told = ["has foreign keys to others", ".line (in no group) refers to", ".invoice (of billing)", "same `group`"];
    says(&migration, dry, 1, &told).await?;
    says(&migration, &["cutover", "--dry-run"], 1, &told).await?;
    std::fs::write(migration.config(), configuration.replace("[cutover]", "[cutover]\nfence = \"read_only\""))?;
    says(&migration, dry, 1, &["would keep users of other groups from writing"]).await?;
    std::fs::write(migration.config(), configuration)?;
    migration.stop_both().await
}

/// A group that the configuration loses keeps its users where they are, and everybody else from an end.
async fn a_group_is_not_forgotten(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup_of_groups(flavor, "forgotten")).await?;
    change(&migration, &["cutover", "--group", "billing"], 0).await?;
    let configuration = std::fs::read_to_string(migration.config())?;
    std::fs::write(migration.config(), configuration.replace("\"billing\"", "\"invoicing\""))?;
    let told = ["does not name billing", "name it again"];
    for words in [&["cutover", "--dry-run"][..], &["flag", "set", "old_only"], &["abort", "--dry-run"]] {
        says(&migration, words, 1, &told).await?;
    }
    says(&migration, &["serve", "--listen", "127.0.0.1:0"], 2, &told).await?;
    until_on_nodes(&migration, [1, 2]).await?;
    // A new one begins where the pair is, and stays there when the others change sides.
    let of_item = configuration.replacen("clock = \"updated_at\"", "clock = \"updated_at\"\ngroup = \"stock\"", 1);
    std::fs::write(migration.config(), of_item)?;
    let told = says(&migration, &["cutover"], 0, &["users read and write new"]).await?;
    ensure!(!told.contains("instances"), "nobody follows the flag of no table: {told}");
    says(&migration, &["flag", "get", "--group", "stock"], 0, &["write_both", "written to old"]).await?;
    change(&migration, &["rollback"], 0).await?;
    change(&migration, &["rollback", "--group", "billing"], 0).await?;
    std::fs::write(migration.config(), &configuration)?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// `flag set old_only` that comes too late, when a group has gone to new, changes nothing.
async fn a_late_flag_set_takes_nobody_back(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup_of_groups(flavor, "late_set")).await?;
    let freeze = [("CROSSFADE_FAILPOINT", "flag-set:1:stop")];
    migration.expect_lines(&["somebody else has changed the flag"]);
    let mut tool = migration.tool("tool", &["flag", "set", "old_only"], &freeze)?;
    tool.until_frozen(LIMIT).await?;
    change(&migration, &["cutover", "--group", "billing"], 0).await?;
    tool.resume()?;
    let status = tool.wait(LIMIT).await?;
    ensure!(status.code() == Some(1), "{status}\n{}", tool.log_end());
    says(&migration, &["flag", "get", "--group", "billing"], 0, &["read_new", "written to new"]).await?;
    change(&migration, &["rollback", "--group", "billing"], 0).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

/// A store that has lost a group's move, and what came after it, takes the flag over that the nodes have: nobody is sent back. The
/// same where only the flip is lost, so that the fence's end makes the version that the flip had.
async fn a_restored_store_keeps_a_group_where_it_is(flavor: Flavor) -> Result<()> {
    let mut migration = staged(&setup_of_groups(flavor, "restored_group")).await?;
    migration.expect_lines(&["the store had an earlier flag than"]);
    change(&migration, &["cutover", "--group", "billing"], 0).await?;
    until_on_nodes(&migration, [1, 2]).await?;
    let key = format!("{}/billing", migration.pair);
    for lost in
        ["DELETE FROM crossfade.flag_state WHERE pair = ?", "UPDATE crossfade.flag_state SET flag = 1 WHERE pair = ?"]
    {
        let mut conn = migration.new.get_conn().await?;
        conn.exec_drop(lost, (&key,)).await?;
        // Whoever looks next: a process looks at what it knows again after a while.
        until("the group's flag", LIMIT, || async {
            let mut conn = migration.new.get_conn().await?;
            let now: Option<u8> =
                conn.exec_first("SELECT flag FROM crossfade.flag_state WHERE pair = ?", (&key,)).await?;
            Ok(if now == Some(2) { Progress::Reached(()) } else { Progress::NotYet(format!("{now:?}")) })
        })
        .await?;
        until_on_nodes(&migration, [1, 2]).await?;
        says(&migration, &["flag", "get", "--group", "billing"], 0, &["read_new", "written to new"]).await?;
    }
    change(&migration, &["rollback", "--group", "billing"], 0).await?;
    migration.until_quiet_and_equal(LIMIT).await?;
    migration.stop_both().await
}

on_both_brands! {
    p9_a_restored_store_keeps_a_group_where_it_is => a_restored_store_keeps_a_group_where_it_is,
    p9_a_group_is_not_forgotten => a_group_is_not_forgotten,
    p9_a_late_flag_set_takes_nobody_back => a_late_flag_set_takes_nobody_back,
    p9_groups_change_sides_one_after_the_other => one_after_the_other,
    p9_a_group_must_be_closed => a_group_must_be_closed,
}
