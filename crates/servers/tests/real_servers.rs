//! What this crate promises, on real servers of both brands.
//!
//! A brand that is not installed fails these tests with the command that installs it.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossfade_servers::{Error, Flavor, Server, SharedPair};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

type TestResult = Result<(), Box<dyn std::error::Error>>;

/// Writes a test once and runs it on each brand.
macro_rules! on_both {
    ($($name:ident),+ $(,)?) => {
        mod mysql { $(#[tokio::test] async fn $name() -> super::TestResult { super::$name(super::Flavor::MySql).await })+ }
        mod mariadb { $(#[tokio::test] async fn $name() -> super::TestResult { super::$name(super::Flavor::MariaDb).await })+ }
    };
}

on_both!(
    a_server_is_what_it_says_and_writes_a_full_binlog,
    a_restart_keeps_port_and_data,
    a_kill_loses_nothing_that_was_committed,
    a_password_and_options_are_obeyed,
    a_chosen_folder_stays_and_its_data_is_used_again,
    a_dropped_server_leaves_nothing_behind,
    a_server_that_does_not_start_shows_its_log,
    a_server_dies_with_its_killed_parent,
    a_frozen_server_goes_on_when_thawed,
    a_starting_server_leaves_the_temporary_tables_of_others_alone,
    tests_share_a_pair_and_have_schemas_of_their_own,
);

fn quick(flavor: Flavor) -> crossfade_servers::ServerBuilder {
    Server::builder(flavor).relaxed()
}

/// Switches read as `1` and `0`, whichever way the brand prints them.
async fn variable(connection: &mut Conn, name: &str) -> Result<String, mysql_async::Error> {
    let value: Option<String> = connection.query_first(format!("SELECT CAST(@@GLOBAL.{name} AS CHAR)")).await?;
    Ok(match value.as_deref() {
        Some("ON") => "1".to_owned(),
        Some("OFF") => "0".to_owned(),
        other => other.unwrap_or_default().to_owned(),
    })
}

fn is_alive(pid: u32) -> bool {
    // A zombie has ended; its parent has not asked yet.
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn wait_until(what: &str, mut reached: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !reached() {
        assert!(Instant::now() < end, "waited in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

async fn a_server_is_what_it_says_and_writes_a_full_binlog(flavor: Flavor) -> TestResult {
    let server = Server::builder(flavor).start().await?;
    assert_eq!((server.flavor(), server.version().flavor), (flavor, flavor));

    let mut connection = server.connect().await?;
    let version: String = connection.query_first("SELECT VERSION()").await?.expect("a version");
    assert_eq!(version.contains("MariaDB"), flavor == Flavor::MariaDb, "{version}");
    let numbers = format!("{}.{}.{}", server.version().major, server.version().minor, server.version().patch);
    assert!(version.starts_with(&numbers), "{version} is not {numbers}");

    let mut expected = vec![
        ("log_bin", "1"),
        ("binlog_format", "ROW"),
        ("binlog_row_image", "FULL"),
        ("binlog_row_metadata", "FULL"),
        ("sync_binlog", "1"),
        ("innodb_flush_log_at_trx_commit", "1"),
        ("performance_schema", "0"),
        ("skip_name_resolve", "1"),
        ("bind_address", "127.0.0.1"),
    ];
    if flavor == Flavor::MySql {
        expected.extend([("gtid_mode", "1"), ("enforce_gtid_consistency", "1")]);
    }
    for (name, value) in expected {
        assert_eq!(variable(&mut connection, name).await?, value, "{name}");
    }
    assert_eq!(variable(&mut connection, "port").await?, server.port().to_string());

    let other = quick(flavor).start().await?;
    let mut to_other = other.connect().await?;
    for identity in ["server_id", "port"] {
        assert_ne!(variable(&mut connection, identity).await?, variable(&mut to_other, identity).await?, "{identity}");
    }
    if flavor == Flavor::MySql {
        assert_ne!(variable(&mut connection, "server_uuid").await?, variable(&mut to_other, "server_uuid").await?);
        assert_eq!(variable(&mut connection, "gtid_executed").await?, "", "a new server has no history");
    }
    Ok(())
}

async fn a_restart_keeps_port_and_data(flavor: Flavor) -> TestResult {
    let server = quick(flavor).start().await?;
    let (port, pid) = (server.port(), server.pid().expect("it runs"));
    let mut connection = server.connect().await?;
    connection.query_drop("CREATE DATABASE kept").await?;

    server.restart().await?;
    assert_eq!(server.port(), port);
    assert_ne!(server.pid().expect("it runs"), pid);
    assert!(!is_alive(pid));
    let mut connection = server.connect().await?;
    connection.query_drop("USE kept").await?;

    server.restart_with(&[("max_connections", "77")]).await?;
    let mut connection = server.connect().await?;
    assert_eq!(variable(&mut connection, "max_connections").await?, "77");

    server.stop().await?;
    assert_eq!(server.pid(), None);
    assert!(matches!(server.freeze().await, Err(Error::NotRunning { .. })));
    server.restart().await?;
    server.connect().await?;
    Ok(())
}

async fn a_kill_loses_nothing_that_was_committed(flavor: Flavor) -> TestResult {
    let server = quick(flavor).start().await?;
    let mut connection = server.connect().await?;
    connection.query_drop("CREATE DATABASE k").await?;
    connection.query_drop("CREATE TABLE k.t (id INT PRIMARY KEY)").await?;
    for id in 0..100 {
        connection.query_drop(format!("INSERT INTO k.t VALUES ({id})")).await?;
    }
    server.kill9().await?;
    assert_eq!(server.pid(), None);
    assert!(connection.query_drop("SELECT 1").await.is_err());

    server.restart().await?;
    let mut connection = server.connect().await?;
    let rows: Option<u32> = connection.query_first("SELECT COUNT(*) FROM k.t").await?;
    assert_eq!(rows, Some(100));
    Ok(())
}

async fn a_password_and_options_are_obeyed(flavor: Flavor) -> TestResult {
    let password = r"it's a \ p@ss:/word";
    let server = quick(flavor)
        .root_password(password)
        .option("binlog-row-image", "MINIMAL")
        .option("lower_case_table_names", 1)
        .start()
        .await?;
    let mut connection = Conn::from_url(server.root_url()).await?;
    assert_eq!(variable(&mut connection, "binlog_row_image").await?, "MINIMAL");
    assert_eq!(variable(&mut connection, "lower_case_table_names").await?, "1");
    assert!(Conn::from_url(server.url("root", "")).await.is_err());
    assert!(!std::fs::read_to_string(server.error_log())?.contains("p@ss"));
    server.restart().await?;
    server.connect().await?;
    Ok(())
}

async fn a_chosen_folder_stays_and_its_data_is_used_again(flavor: Flavor) -> TestResult {
    let folder = tempfile::tempdir()?;
    let chosen = folder.path().join("server");
    let server = quick(flavor).data_dir(&chosen).start().await?;
    let pid = server.pid().expect("it runs");
    server.connect().await?.query_drop("CREATE DATABASE kept").await?;
    drop(server);
    assert!(!is_alive(pid));

    let server = quick(flavor).data_dir(&chosen).keep(false).start().await?;
    server.connect().await?.query_drop("USE kept").await?;
    drop(server);
    assert!(!chosen.exists());
    Ok(())
}

async fn a_dropped_server_leaves_nothing_behind(flavor: Flavor) -> TestResult {
    let server = quick(flavor).start().await?;
    let (pid, socket, data) = (server.pid().expect("it runs"), server.socket().to_owned(), server.data_dir());
    assert!(socket.exists() && data.exists());
    drop(server);
    assert!(!is_alive(pid) && !socket.exists() && !data.exists());
    assert!(!data.parent().expect("a folder").exists());
    Ok(())
}

async fn a_server_that_does_not_start_shows_its_log(flavor: Flavor) -> TestResult {
    let error = quick(flavor).option("no_such_option", "1").start().await.expect_err("there is no such option");
    let text = error.to_string();
    assert!(matches!(error, Error::StartFailed { .. }), "{text}");
    assert!(text.contains("ended while it was starting") && text.contains("no_such_option"), "{text}");
    Ok(())
}

async fn a_frozen_server_goes_on_when_thawed(flavor: Flavor) -> TestResult {
    let server = quick(flavor).start().await?;
    let mut connection = server.connect().await?;
    server.freeze().await?;
    let frozen = tokio::time::timeout(Duration::from_millis(300), connection.query_drop("SELECT 1")).await;
    assert!(frozen.is_err(), "a frozen server does not answer");
    server.thaw()?;
    server.connect().await?.query_drop("SELECT 1").await?;
    Ok(())
}

/// A server clears its folder of temporary tables when it starts; in a shared folder it takes those of running servers.
async fn a_starting_server_leaves_the_temporary_tables_of_others_alone(flavor: Flavor) -> TestResult {
    let server = quick(flavor).start().await?;
    let mut connection = server.connect().await?;
    connection.query_drop("CREATE DATABASE t").await?;
    connection.query_drop("CREATE TEMPORARY TABLE t.t (id INT) ENGINE=MyISAM").await?;
    connection.query_drop("INSERT INTO t.t VALUES (1)").await?;
    let _other = quick(flavor).start().await?;
    connection.query_drop("FLUSH TABLES").await?;
    connection.query_drop("ALTER TABLE t.t ADD COLUMN n INT").await?;
    let rows: Option<u32> = connection.query_first("SELECT COUNT(*) FROM t.t").await?;
    assert_eq!(rows, Some(1));
    Ok(())
}

async fn tests_share_a_pair_and_have_schemas_of_their_own(flavor: Flavor) -> TestResult {
    let pair = SharedPair::get(flavor).await;
    assert_eq!(pair.flavor(), flavor);
    assert_ne!(pair.old().port(), pair.new().port());
    let (one, two) = (pair.create_schema("My orders").await?, pair.create_schema("My orders").await?);
    assert_ne!(one, two);
    for server in [pair.old(), pair.new()] {
        server.connect().await?.query_drop(format!("USE `{one}`")).await?;
    }
    // Another test, another runtime: the same pair.
    let port = pair.old().port();
    let of_other_runtime = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async { SharedPair::get(flavor).await.old().port() })
    });
    assert_eq!(of_other_runtime.join().expect("no panic"), port);
    Ok(())
}

/// Set in the helper process of the next test.
const HELPER: &str = "CROSSFADE_SERVERS_TEST_HELPER";

async fn a_server_dies_with_its_killed_parent(flavor: Flavor) -> TestResult {
    let module = if flavor == Flavor::MySql { "mysql" } else { "mariadb" };
    let test = format!("{module}::a_server_dies_with_its_killed_parent");
    if std::env::var_os(HELPER).is_some() {
        let server = quick(flavor).start().await?;
        println!("\nhelper {} {}", server.pid().expect("it runs"), server.data_dir().display());
        std::thread::sleep(Duration::from_secs(600));
        return Err("nobody killed the helper".into());
    }
    let mut helper = Command::new(std::env::current_exe()?)
        .args(["--exact", &test, "--nocapture"])
        .env(HELPER, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(helper.stdout.take().expect("piped")).lines();
    let line =
        lines.map_while(Result::ok).find(|line| line.starts_with("helper ")).expect("the helper's server starts");
    let mut words = line.split(' ').skip(1);
    let pid: u32 = words.next().expect("a pid").parse()?;
    let data = Path::new(words.next().expect("a folder")).to_owned();
    assert!(is_alive(pid));

    helper.kill()?;
    assert_eq!(helper.wait()?.signal(), Some(9));
    wait_until("the server is gone", || !is_alive(pid));

    // What it left is removed by the next process that starts a server: at the latest this one, which exits without dropping its server.
    let status = Command::new(std::env::current_exe()?)
        .args(["--exact", &format!("{module}::tests_share_a_pair_and_have_schemas_of_their_own"), "--nocapture"])
        .stdout(Stdio::null())
        .status()?;
    assert!(status.success());
    assert!(!data.parent().expect("a folder").exists(), "left behind: {}", data.display());
    Ok(())
}

/// Variables of this process are read by all its threads; so a process of its own sets them.
#[test]
fn a_variable_that_leads_nowhere_is_an_error_that_says_so() {
    const NAME: &str = "a_variable_that_leads_nowhere_is_an_error_that_says_so";
    if std::env::var_os(HELPER).is_some() {
        for flavor in Flavor::ALL {
            println!("\n{}", crossfade_servers::ServerBinary::find(flavor).expect_err("unusable"));
        }
        return;
    }
    let output = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", NAME, "--nocapture"])
        .env(HELPER, "1")
        .env("CROSSFADE_MYSQLD", "/nonexistent/mysqld")
        .env("CROSSFADE_MARIADBD", "/bin/true")
        .output()
        .expect("the helper runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("CROSSFADE_MYSQLD is set to /nonexistent/mysqld, but it does not start"), "{text}");
    assert!(text.contains("run scripts/servers.sh --mysql"), "{text}");
    assert!(text.contains("CROSSFADE_MARIADBD is set to /bin/true, but it prints no server version"), "{text}");
    assert!(text.contains("run scripts/servers.sh --mariadb"), "{text}");
}

/// MariaDB's packages leave a `mysqld`, which must not be taken for MySQL.
#[test]
fn mariadb_is_not_taken_for_mysql() {
    const NAME: &str = "mariadb_is_not_taken_for_mysql";
    if std::env::var_os(HELPER).is_some() {
        println!("\n{}", crossfade_servers::ServerBinary::find(Flavor::MySql).expect_err("not MySQL"));
        return;
    }
    let mariadb = crossfade_servers::ServerBinary::find(Flavor::MariaDb).unwrap_or_else(|error| panic!("{error}"));
    let output = Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", NAME, "--nocapture"])
        .env(HELPER, "1")
        .env("CROSSFADE_MYSQLD", mariadb.path())
        .output()
        .expect("the helper runs");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("but that is MariaDB") && text.contains("not MySQL"), "{text}");
}
