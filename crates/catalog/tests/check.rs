//! Every broken precondition, made on real servers, is found; and nothing is found where nothing is wrong.

use std::collections::BTreeSet;
use std::path::Path;

use crossfade_catalog::check::{Finding, Report, Severity, check};
use crossfade_config::Settings;
use crossfade_model::Side;
use crossfade_servers::{Flavor, Server, SharedPair};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use Severity::{Error, Info, Warning};
use Side::{New, Old};

const SCHEMA: &[&str] = &[
    "CREATE DATABASE app",
    "CREATE TABLE app.users (id BIGINT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL,
       updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6))",
    "CREATE TABLE app.orders (id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT, `group` VARCHAR(50) NOT NULL,
       updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
       CONSTRAINT to_user FOREIGN KEY (user_id) REFERENCES app.users (id))",
    "CREATE TABLE app.`odd``name` (id INT PRIMARY KEY, version INT NOT NULL)",
    "CREATE TABLE app.unsynced (id INT PRIMARY KEY)",
    "CREATE USER sync IDENTIFIED BY 'sesame'",
];

const TABLES: &str = "
[[table]]
name = 'app.users'
clock = 'updated_at'
[[table]]
name = 'app.orders'
clock = 'updated_at'
[[table]]
name = 'app.`odd`\u{60}name`'
clock = 'version'
policy = 'version'
";

/// Two servers of one brand, each with tables, an account, and a connection that may do everything.
struct Sides {
    servers: [Server; 2],
    roots: [Conn; 2],
}

/// One thing that is broken: where, how, how it is put right, and what must be found.
struct Break {
    flavor: Option<Flavor>,
    side: Side,
    how: &'static [&'static str],
    heal: &'static [&'static str],
    finds: &'static [(Severity, &'static str, Option<Side>)],
}

const fn broken(
    side: Side,
    how: &'static [&'static str],
    heal: &'static [&'static str],
    finds: &'static [(Severity, &'static str, Option<Side>)],
) -> Break {
    Break { flavor: None, side, how, heal, finds }
}

const fn only(flavor: Flavor, what: Break) -> Break {
    Break { flavor: Some(flavor), ..what }
}

impl Sides {
    async fn start(flavor: Flavor) -> Sides {
        let (old, new) = tokio::join!(Server::builder(flavor).start(), Server::builder(flavor).start());
        let servers = [old.unwrap(), new.unwrap()];
        let roots = [servers[0].connect().await.unwrap(), servers[1].connect().await.unwrap()];
        let mut sides = Sides { servers, roots };
        for (side, offset) in [(Old, 1), (New, 2)] {
            sides.run(side, SCHEMA).await;
            let apart = format!("SET GLOBAL auto_increment_increment = 2, auto_increment_offset = {offset}");
            sides.run(side, &[&apart, &format!("SET GLOBAL server_id = {}", 70 + offset)]).await;
        }
        sides
    }

    fn server(&self, side: Side) -> &Server {
        &self.servers[side as usize]
    }

    async fn run(&mut self, side: Side, statements: &[&str]) {
        for statement in statements {
            let result = self.roots[side as usize].query_drop(*statement).await;
            result.unwrap_or_else(|error| panic!("{side}: {statement}: {error}"));
        }
    }

    async fn restart_with(&mut self, side: Side, options: &[(&str, &str)]) {
        self.server(side).restart_with(options).await.unwrap();
        self.roots[side as usize] = self.server(side).connect().await.unwrap();
        let offset = if side == Old { 1 } else { 2 };
        let apart = format!("SET GLOBAL auto_increment_increment = 2, auto_increment_offset = {offset}");
        self.run(side, &[&apart, &format!("SET GLOBAL server_id = {}", 70 + offset)]).await;
    }

    async fn check(&self, tables: &str) -> Report {
        let url = |side| self.server(side).url("sync", "sesame");
        check(&settings(&url(Old), &url(New), tables), Vec::new()).await
    }

    /// Carries out every GRANT that a check prints, until it prints none. Returns how many were needed.
    async fn grant_what_is_asked_for(&mut self) -> usize {
        let mut granted = 0;
        for _ in 0..4 {
            let report = self.check(TABLES).await;
            let grants = report.findings.iter().filter(|finding| finding.remedy.starts_with("GRANT "));
            let grants: Vec<(Side, String)> =
                grants.map(|finding| (finding.side.unwrap(), finding.remedy.clone())).collect();
            if grants.is_empty() {
                break;
            }
            granted += grants.len();
            for (side, grant) in grants {
                self.run(side, &[&grant]).await;
            }
        }
        granted
    }
}

fn settings(old: &str, new: &str, tables: &str) -> Settings {
    let text = format!("pair = 'p'\nold.url = '{old}'\nnew.url = '{new}'\n{tables}");
    Settings::parse(Path::new("check.toml"), &text, &|_| None).unwrap_or_else(|problems| panic!("{problems}"))
}

type Key = (Severity, &'static str, Option<Side>);

fn keys(report: &Report) -> BTreeSet<Key> {
    report.findings.iter().map(|finding| (finding.severity, finding.code, finding.side)).collect()
}

const HEALTHY: &[Key] = &[(Info, "store-growth", None)];

fn assert_finds(report: &Report, expected: impl IntoIterator<Item = Key>, context: &str) {
    let expected: BTreeSet<Key> = expected.into_iter().chain(HEALTHY.iter().copied()).collect();
    assert_eq!(keys(report), expected, "{context}: {:#?}", report.findings);
    for Finding { code, message, remedy, subject, .. } in &report.findings {
        assert!(!subject.is_empty() && message.len() > 10 && remedy.len() > 5, "{code}: {message} / {remedy}");
    }
    assert!(report.findings.is_sorted(), "{context}: errors come first");
    let text = serde_json::to_string(report).unwrap();
    assert!(!text.contains("sesame"), "{context}: {text}");
}

/// Each inner list is broken at once; nothing else than what is listed may be found.
fn rounds() -> Vec<Vec<Break>> {
    const DEFAULT_CLOCK: &str =
        "ALTER TABLE app.users MODIFY updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
           ON UPDATE CURRENT_TIMESTAMP(6)";
    const RESTRICT: &[&str] = &[
        "ALTER TABLE app.orders DROP FOREIGN KEY to_user",
        "ALTER TABLE app.orders ADD CONSTRAINT to_user FOREIGN KEY (user_id) REFERENCES app.users (id)",
    ];
    const CASCADE: &[&str] = &[
        "ALTER TABLE app.orders DROP FOREIGN KEY to_user",
        "ALTER TABLE app.orders ADD CONSTRAINT to_user FOREIGN KEY (user_id) REFERENCES app.users (id)
           ON DELETE CASCADE ON UPDATE SET NULL",
    ];
    vec![
        vec![
            broken(
                Old,
                &["SET GLOBAL binlog_format = 'STATEMENT'"],
                &["SET GLOBAL binlog_format = 'ROW'"],
                &[(Error, "binlog-format", Some(Old))],
            ),
            broken(
                Old,
                &["SET GLOBAL binlog_row_image = 'MINIMAL'"],
                &["SET GLOBAL binlog_row_image = 'FULL'"],
                &[(Error, "binlog-row-image", Some(Old))],
            ),
            broken(
                New,
                &["SET GLOBAL binlog_row_metadata = 'MINIMAL'"],
                &["SET GLOBAL binlog_row_metadata = 'FULL'"],
                &[(Warning, "binlog-row-metadata", Some(New))],
            ),
            broken(
                New,
                &["SET GLOBAL sync_binlog = 0"],
                &["SET GLOBAL sync_binlog = 1"],
                &[(Warning, "sync-binlog", Some(New))],
            ),
            broken(
                Old,
                &["SET GLOBAL innodb_flush_log_at_trx_commit = 2"],
                &["SET GLOBAL innodb_flush_log_at_trx_commit = 1"],
                &[(Warning, "flush-log-at-commit", Some(Old))],
            ),
            only(
                Flavor::MySql,
                broken(
                    Old,
                    &["SET GLOBAL binlog_order_commits = OFF"],
                    &["SET GLOBAL binlog_order_commits = ON"],
                    &[(Warning, "binlog-order-commits", Some(Old))],
                ),
            ),
            broken(
                Old,
                &["SET GLOBAL binlog_expire_logs_seconds = 3600"],
                &["SET GLOBAL binlog_expire_logs_seconds = 0"],
                &[(Warning, "binlog-retention", Some(Old))],
            ),
            broken(
                Old,
                &["SET GLOBAL server_id = 72"],
                &["SET GLOBAL server_id = 71"],
                &[(Warning, "server-id-clash", None)],
            ),
            broken(
                New,
                &["SET GLOBAL max_allowed_packet = 1048576"],
                &["SET GLOBAL max_allowed_packet = 67108864"],
                &[(Warning, "max-allowed-packet", Some(New)), (Warning, "max-allowed-packet-smaller", Some(New))],
            ),
            broken(
                New,
                &["SET GLOBAL time_zone = '+02:00'"],
                &["SET GLOBAL time_zone = 'SYSTEM'"],
                &[(Warning, "time-zone", None)],
            ),
            broken(
                Old,
                &["SET GLOBAL auto_increment_increment = 1"],
                &["SET GLOBAL auto_increment_increment = 2"],
                &[(Warning, "auto-increment", None)],
            ),
        ],
        vec![
            broken(
                New,
                &["SET GLOBAL read_only = 1"],
                &["SET GLOBAL read_only = 0"],
                &[(Error, "read-only", Some(New))],
            ),
            only(
                Flavor::MySql,
                broken(
                    New,
                    &["SET GLOBAL server_id = 0"],
                    &["SET GLOBAL server_id = 72"],
                    &[(Error, "server-id-zero", Some(New))],
                ),
            ),
        ],
        vec![broken(
            New,
            &["XA START 'open'", "INSERT INTO app.unsynced VALUES (1)", "XA END 'open'", "XA PREPARE 'open'"],
            &["XA ROLLBACK 'open'"],
            &[(Warning, "prepared-transactions", Some(New))],
        )],
        vec![
            broken(
                New,
                &["ALTER TABLE app.users MODIFY updated_at TIMESTAMP(2) NOT NULL DEFAULT CURRENT_TIMESTAMP(2)
                       ON UPDATE CURRENT_TIMESTAMP(2)"],
                &[DEFAULT_CLOCK],
                &[(Warning, "clock-coarse", Some(New)), (Warning, "column-partly-compatible", Some(Old))],
            ),
            broken(
                Old,
                &["ALTER TABLE app.orders MODIFY updated_at DATETIME(6) NOT NULL"],
                &["ALTER TABLE app.orders MODIFY updated_at DATETIME(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6)
                       ON UPDATE CURRENT_TIMESTAMP(6)"],
                &[(Warning, "clock-not-updated", Some(Old))],
            ),
            broken(
                New,
                &["CREATE TRIGGER app.touch BEFORE UPDATE ON app.users FOR EACH ROW SET NEW.name = UPPER(NEW.name)"],
                &["DROP TRIGGER app.touch"],
                &[(Error, "trigger", Some(New))],
            ),
            broken(
                Old,
                &["CREATE TRIGGER app.count_it AFTER INSERT ON app.orders FOR EACH ROW SET @counted = 1"],
                &["DROP TRIGGER app.count_it"],
                &[(Warning, "trigger", Some(Old))],
            ),
            broken(
                New,
                &["ALTER TABLE app.`odd``name` ENGINE = MyISAM"],
                &["ALTER TABLE app.`odd``name` ENGINE = InnoDB"],
                &[(Error, "not-innodb", Some(New))],
            ),
        ],
        vec![
            broken(
                New,
                &["ALTER TABLE app.`odd``name` DROP COLUMN version"],
                &["ALTER TABLE app.`odd``name` ADD COLUMN version INT NOT NULL"],
                &[
                    (Error, "clock-missing", Some(Old)),
                    (Warning, "column-dropped", Some(Old)),
                    (Error, "column-unfilled", Some(New)),
                ],
            ),
            broken(
                New,
                &["RENAME TABLE app.users TO app.people"],
                &["RENAME TABLE app.people TO app.users"],
                &[(Error, "table-missing", Some(New)), (Warning, "foreign-key-parent", Some(New))],
            ),
        ],
        vec![
            broken(
                Old,
                &["ALTER TABLE app.`odd``name` DROP PRIMARY KEY"],
                &["ALTER TABLE app.`odd``name` ADD PRIMARY KEY (id)"],
                &[(Error, "keyless", Some(Old))],
            ),
            broken(
                New,
                &["RENAME TABLE app.orders TO app.hidden", "CREATE VIEW app.orders AS SELECT * FROM app.hidden"],
                &["DROP VIEW app.orders", "RENAME TABLE app.hidden TO app.orders"],
                &[(Error, "not-a-table", Some(New))],
            ),
            broken(
                New,
                &["ALTER TABLE app.users MODIFY name DATE"],
                &["ALTER TABLE app.users MODIFY name VARCHAR(50) NOT NULL"],
                &[
                    (Error, "column-incompatible", Some(Old)),
                    (Error, "column-incompatible", Some(New)),
                    (Warning, "column-null-refused", Some(New)),
                ],
            ),
        ],
        vec![
            broken(Old, CASCADE, RESTRICT, &[]),
            only(Flavor::MySql, broken(Old, &[], &[], &[(Info, "foreign-key-cascade", Some(Old))])),
            only(Flavor::MariaDb, broken(Old, &[], &[], &[(Error, "foreign-key-cascade-lost", Some(Old))])),
        ],
        vec![
            broken(Old, CASCADE, RESTRICT, &[]),
            broken(New, CASCADE, RESTRICT, &[]),
            only(
                Flavor::MySql,
                broken(
                    Old,
                    &[],
                    &[],
                    &[(Info, "foreign-key-cascade", Some(Old)), (Info, "foreign-key-cascade", Some(New))],
                ),
            ),
            only(
                Flavor::MariaDb,
                broken(
                    Old,
                    &[],
                    &[],
                    &[(Warning, "foreign-key-cascade", Some(Old)), (Warning, "foreign-key-cascade", Some(New))],
                ),
            ),
            broken(
                Old,
                &[
                    "ALTER TABLE app.users ADD COLUMN u INT, ADD CONSTRAINT out_of FOREIGN KEY (u) REFERENCES app.unsynced (id)",
                ],
                &["ALTER TABLE app.users DROP FOREIGN KEY out_of", "ALTER TABLE app.users DROP COLUMN u"],
                &[(Warning, "foreign-key-parent", Some(Old)), (Warning, "column-dropped", Some(Old))],
            ),
        ],
        vec![
            broken(
                Old,
                &["REVOKE UPDATE, DELETE ON app.orders FROM sync", "REVOKE REPLICATION SLAVE ON *.* FROM sync"],
                &["GRANT UPDATE, DELETE ON app.orders TO sync", "GRANT REPLICATION SLAVE ON *.* TO sync"],
                &[(Error, "privilege-missing", Some(Old))],
            ),
            broken(
                New,
                &["REVOKE CREATE VIEW ON crossfade.* FROM sync"],
                &["GRANT CREATE VIEW ON crossfade.* TO sync"],
                &[(Error, "privilege-missing", Some(New))],
            ),
            broken(
                New,
                &["REVOKE TRIGGER ON app.users FROM sync"],
                &["GRANT TRIGGER ON app.users TO sync"],
                &[(Warning, "triggers-unseen", Some(New))],
            ),
            only(
                Flavor::MySql,
                broken(
                    Old,
                    &["REVOKE XA_RECOVER_ADMIN ON *.* FROM sync"],
                    &["GRANT XA_RECOVER_ADMIN ON *.* TO sync"],
                    &[(Info, "prepared-transactions-unseen", Some(Old))],
                ),
            ),
        ],
    ]
}

async fn every_broken_condition_is_found(flavor: Flavor) {
    let mut sides = Sides::start(flavor).await;
    let report = sides.check(TABLES).await;
    assert!(report.has_errors(), "an account without privileges: {:#?}", report.findings);
    // Which tables a pattern would take cannot be seen, but what it needs is known.
    let report = sides.check("[[table]]\nname = 'app.*'").await;
    for side in [Old, New] {
        let grants = |finding: &&Finding| finding.remedy.starts_with("GRANT SELECT, INSERT, UPDATE, DELETE ON `app`.*");
        let found = report.findings.iter().filter(|finding| finding.side == Some(side)).find(grants);
        assert!(found.is_some(), "{side}: {:#?}", report.findings);
    }
    let granted = sides.grant_what_is_asked_for().await;
    assert!(granted >= 6, "{granted}");
    for side in [Old, New] {
        // One at a time, so that they can be taken away one by one.
        sides.run(side, &["GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON app.users TO sync"]).await;
        sides.run(side, &["GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON app.orders TO sync"]).await;
        sides.run(side, &["GRANT SELECT, INSERT, UPDATE, DELETE, TRIGGER ON app.`odd``name` TO sync"]).await;
        sides.run(side, &["REVOKE SELECT, INSERT, UPDATE, DELETE, TRIGGER ON app.* FROM sync"]).await;
    }
    assert_finds(&sides.check(TABLES).await, [], &format!("{flavor}, healthy"));

    for (number, round) in rounds().into_iter().enumerate() {
        let round: Vec<Break> = round.into_iter().filter(|one| one.flavor.is_none_or(|only| only == flavor)).collect();
        for one in &round {
            sides.run(one.side, one.how).await;
        }
        let report = sides.check(TABLES).await;
        for one in round.iter().rev() {
            sides.run(one.side, one.heal).await;
        }
        let expected = round.iter().flat_map(|one| one.finds.iter().copied());
        assert_finds(&report, expected, &format!("{flavor}, round {number}"));
    }
    assert_finds(&sides.check(TABLES).await, [], &format!("{flavor}, healthy again"));
}

#[tokio::test]
async fn every_broken_condition_is_found_on_mysql() {
    every_broken_condition_is_found(Flavor::MySql).await;
}

#[tokio::test]
async fn every_broken_condition_is_found_on_mariadb() {
    every_broken_condition_is_found(Flavor::MariaDb).await;
}

/// What only a restart can break.
async fn broken_start_options_are_found(flavor: Flavor) {
    let mut sides = Sides::start(flavor).await;
    for side in [Old, New] {
        sides.run(side, &["GRANT ALL ON *.* TO sync"]).await;
    }
    assert_finds(&sides.check(TABLES).await, [], &format!("{flavor}, healthy"));

    sides.restart_with(Old, &[("binlog_ignore_db", "crossfade")]).await;
    sides.restart_with(New, &[("binlog_do_db", "app")]).await;
    let expected = [(Error, "binlog-filter", Some(Old)), (Error, "binlog-filter", Some(New))];
    assert_finds(&sides.check(TABLES).await, expected, &format!("{flavor}, filtered"));

    let gtids: &[(&str, &str)] = match flavor {
        Flavor::MySql => &[("gtid_mode", "OFF"), ("enforce_gtid_consistency", "OFF")],
        Flavor::MariaDb => &[],
    };
    let mut options = vec![("binlog_do_db", "crossfade")];
    options.extend(gtids);
    sides.restart_with(New, &options).await;
    let mut expected = vec![(Error, "binlog-filter", Some(Old)), (Error, "binlog-filter", Some(New))];
    expected.extend((flavor == Flavor::MySql).then_some((Warning, "gtid-off", Some(New))));
    assert_finds(&sides.check(TABLES).await, expected, &format!("{flavor}, filtered and without GTIDs"));
}

#[tokio::test]
async fn broken_start_options_are_found_on_both_servers() {
    tokio::join!(broken_start_options_are_found(Flavor::MySql), broken_start_options_are_found(Flavor::MariaDb));
}

#[tokio::test]
async fn a_server_without_a_binlog_is_found() {
    for flavor in Flavor::ALL {
        let server = Server::builder(flavor).flag("skip_log_bin").start().await.unwrap();
        let url = server.root_url();
        let report = check(&settings(&url, &url, TABLES), Vec::new()).await;
        let found = keys(&report);
        assert!(found.contains(&(Error, "binlog-off", Some(Old))), "{found:?}");
        assert!(!found.iter().any(|(_, code, _)| *code == "store-growth"), "nothing can be measured: {found:?}");
        assert!(found.contains(&(Error, "same-server", None)), "{found:?}");
        assert!(found.contains(&(Error, "table-missing", Some(New))), "{found:?}");
    }
}

#[tokio::test]
async fn pairs_that_were_never_tested_and_servers_that_are_away_are_refused() {
    let (mysql, mariadb) = (SharedPair::get(Flavor::MySql).await, SharedPair::get(Flavor::MariaDb).await);
    let pattern = "[[table]]\nname = 'nobody.*'";
    let report = check(&settings(&mysql.old().root_url(), &mariadb.new().root_url(), pattern), Vec::new()).await;
    let found = keys(&report);
    assert!(found.contains(&(Error, "mixed-flavors", None)), "{found:?}");
    assert!(found.contains(&(Error, "pattern-without-tables", Some(Old))), "{found:?}");

    let of_the_caller = Finding::new(Error, "rules-differ", None, "rules", "the processes disagree", "restart both");
    let away = settings("mysql://root:sesame@127.0.0.1:1", &mysql.new().root_url(), TABLES);
    let report = check(&away, vec![of_the_caller.clone()]).await;
    assert!(report.findings.contains(&of_the_caller));
    let unreachable = report.findings.iter().find(|finding| finding.code == "unreachable").unwrap();
    assert_eq!(unreachable.side, Some(Old));
    assert!(unreachable.message.contains("127.0.0.1:1") && !unreachable.message.contains("sesame"), "{unreachable:?}");
    assert!(report.has_errors());
}

#[tokio::test]
async fn privileges_of_an_active_role_count() {
    for flavor in Flavor::ALL {
        let pair = SharedPair::get(flavor).await;
        let schema = pair.create_schema("role").await.unwrap();
        for server in [pair.old(), pair.new()] {
            let mut root = server.connect().await.unwrap();
            let set_default = match flavor {
                Flavor::MySql => "SET DEFAULT ROLE mover TO by_role",
                Flavor::MariaDb => "SET DEFAULT ROLE mover FOR by_role",
            };
            for statement in [
                &format!("CREATE TABLE {schema}.t (id INT PRIMARY KEY)"),
                "CREATE ROLE mover",
                "GRANT ALL ON *.* TO mover",
                "CREATE USER by_role IDENTIFIED BY 'x'",
                "GRANT mover TO by_role",
                set_default,
            ] {
                root.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
            }
        }
        let url = |server: &Server| server.url("by_role", "x");
        let tables = format!("[[table]]\nname = '{schema}.t'");
        let report = check(&settings(&url(pair.old()), &url(pair.new()), &tables), Vec::new()).await;
        let missing: Vec<&Finding> =
            report.findings.iter().filter(|finding| finding.code == "privilege-missing").collect();
        assert!(missing.is_empty(), "{flavor}: {missing:#?}");
        assert!(!report.has_errors(), "{flavor}: {:#?}", report.findings);
    }
}

/// Where tables are missing on the new side, what creating them needs is told as well: somebody else may create them.
#[tokio::test]
async fn what_creating_tables_needs_is_told() {
    let pair = SharedPair::get(Flavor::MariaDb).await;
    let mut old = pair.old().connect().await.unwrap();
    old.query_drop("CREATE DATABASE only_old").await.unwrap();
    old.query_drop("CREATE TABLE only_old.t (id INT PRIMARY KEY)").await.unwrap();
    let mut new = pair.new().connect().await.unwrap();
    new.query_drop("CREATE USER poor IDENTIFIED BY 'x'").await.unwrap();
    let tables = "[[table]]\nname = 'only_old.t'";
    let settings = settings(&pair.old().root_url(), &pair.new().url("poor", "x"), tables);
    let of_creating = async || {
        let report = check(&settings, Vec::new()).await;
        let is_it = |finding: &Finding| finding.code == "privilege-missing" && finding.message.contains("schema copy");
        report.findings.into_iter().find(is_it)
    };
    let finding = of_creating().await.unwrap();
    assert_eq!((finding.severity, finding.side), (Warning, Some(New)));
    assert!(finding.remedy.starts_with("GRANT CREATE, REFERENCES ON `only_old`.* TO"), "{finding:?}");
    new.query_drop(finding.remedy.trim_end_matches(';')).await.unwrap();
    assert!(of_creating().await.is_none());
}

/// The binlog may be read elsewhere, and the store may be elsewhere: each is asked for what it must do, no more.
#[tokio::test]
async fn a_binlog_and_a_store_of_their_own_are_looked_at() {
    let pair = SharedPair::get(Flavor::MySql).await;
    let silent = Server::builder(Flavor::MySql).flag("skip_log_bin").start().await.unwrap();
    let mut root = silent.connect().await.unwrap();
    root.query_drop("CREATE USER keeper IDENTIFIED BY 'x'").await.unwrap();
    let elsewhere =
        format!("old.binlog_url = '{}'\nstore.url = '{}'\n{TABLES}", silent.root_url(), silent.url("keeper", "x"));
    let report = check(&settings(&pair.old().root_url(), &pair.new().root_url(), &elsewhere), Vec::new()).await;
    let found = keys(&report);
    assert!(found.contains(&(Error, "binlog-off", Some(Old))), "{found:?}");
    assert!(!found.contains(&(Error, "binlog-off", None)), "a store needs no binlog: {found:?}");
    let missing: Vec<&Finding> = report.findings.iter().filter(|finding| finding.code == "privilege-missing").collect();
    let [missing] = missing.as_slice() else { panic!("{missing:#?}") };
    assert_eq!((missing.side, missing.subject.as_str()), (None, "`crossfade`.*"));
    assert!(missing.remedy.starts_with("GRANT ") && missing.remedy.contains("CREATE VIEW"), "{missing:?}");
    root.query_drop(missing.remedy.trim_end_matches(';')).await.unwrap();
    let report = check(&settings(&pair.old().root_url(), &pair.new().root_url(), &elsewhere), Vec::new()).await;
    assert!(!keys(&report).iter().any(|(_, code, _)| *code == "privilege-missing"), "{:#?}", report.findings);
}
