//! Connections as the URL demands, on both servers.

use crossfade_catalog::{CatalogError, GtidMode, Purpose, ServerFacts, SupportLevel, connect};
use crossfade_config::ServerUrl;
use crossfade_servers::{Flavor, Server, SharedPair};
use mysql_async::prelude::Queryable;

fn url(server: &Server, options: &str) -> ServerUrl {
    ServerUrl::parse(&format!("{}{options}", server.root_url())).unwrap()
}

async fn cipher(url: &ServerUrl) -> Result<String, CatalogError> {
    let mut conn = connect(url, Purpose::Catalog).await?;
    let row: Option<(String, String)> = conn.query_first("SHOW SESSION STATUS LIKE 'Ssl_cipher'").await.unwrap();
    Ok(row.unwrap().1)
}

#[tokio::test]
async fn tls_follows_the_url_on_mysql() {
    let pair = SharedPair::get(Flavor::MySql).await;
    let server = pair.old();
    let own_ca = server.data_dir().join("ca.pem").display().to_string();
    // A certificate that has signed nothing.
    let other_ca = server.data_dir().join("client-cert.pem").display().to_string();

    for encrypted in ["", "?ssl-mode=PREFERRED", "?ssl-mode=REQUIRED", &format!("?ssl-mode=VERIFY_CA&ssl-ca={own_ca}")]
    {
        let cipher = cipher(&url(server, encrypted)).await.unwrap_or_else(|error| panic!("{encrypted}: {error:?}"));
        assert_ne!(cipher, "", "{encrypted}");
    }
    assert_eq!(cipher(&url(server, "?ssl-mode=DISABLED")).await.unwrap(), "");

    let refused = [
        // The certificate of another authority, of no known authority, and for no host name.
        format!("?ssl-mode=VERIFY_CA&ssl-ca={other_ca}"),
        "?ssl-mode=VERIFY_CA".to_owned(),
        format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={own_ca}"),
    ];
    for options in refused {
        let error = cipher(&url(server, &options)).await.expect_err(&options);
        assert!(error.hint().is_some_and(|hint| hint.contains("ssl-ca")), "{options}: {error:?}");
    }
    let error = cipher(&url(server, "?ssl-mode=VERIFY_CA&ssl-ca=/nowhere/ca.pem")).await.unwrap_err();
    assert!(matches!(error, CatalogError::Certificates { .. }), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_taken_only_where_the_url_allows_it() {
    let pair = SharedPair::get(Flavor::MariaDb).await;
    assert_eq!(cipher(&url(pair.old(), "")).await.unwrap(), "", "PREFERRED falls back");
    for options in ["?ssl-mode=REQUIRED", "?ssl-mode=VERIFY_CA"] {
        let error = cipher(&url(pair.old(), options)).await.unwrap_err();
        assert!(matches!(error, CatalogError::NoTls { .. }), "{options}: {error:?}");
    }
}

async fn sockets_and_purposes_work(flavor: Flavor) {
    let server = SharedPair::get(flavor).await.old();
    let by_socket = url(server, &format!("?socket={}", server.socket().display()));
    let mut conn = connect(&by_socket, Purpose::Catalog).await.unwrap();
    let user: Option<String> = conn.query_first("SELECT USER()").await.unwrap();
    assert_eq!(user.as_deref(), Some("root@localhost"));

    let mut conn = connect(&url(server, ""), Purpose::Apply).await.unwrap();
    conn.query_drop("CREATE TEMPORARY TABLE mysql.found (id INT PRIMARY KEY) SELECT 7 AS id").await.unwrap();
    conn.query_drop("UPDATE mysql.found SET id = 7").await.unwrap();
    assert_eq!(conn.affected_rows(), 1, "matched rows count for the applier");
}

#[tokio::test]
async fn sockets_and_purposes_work_on_both_servers() {
    sockets_and_purposes_work(Flavor::MySql).await;
    sockets_and_purposes_work(Flavor::MariaDb).await;
}

#[tokio::test]
async fn failures_name_the_server_and_never_the_password() {
    let server = SharedPair::get(Flavor::MySql).await.old();
    let wrong = ServerUrl::parse(&format!("mysql://root:sesame@127.0.0.1:{}", server.port())).unwrap();
    let error = connect(&wrong, Purpose::Catalog).await.unwrap_err();
    let shown = format!("{error} {error:?} {:?}", error.hint());
    assert!(shown.contains("root@127.0.0.1") && shown.contains("check user and password"), "{shown}");
    assert!(!shown.contains("sesame"), "{shown}");

    let nobody = ServerUrl::parse("mysql://root@127.0.0.1:1").unwrap();
    let error = connect(&nobody, Purpose::Catalog).await.unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("host and port")), "{error:?}");
}

#[tokio::test]
async fn facts_are_those_of_the_server() {
    for flavor in Flavor::ALL {
        let server = SharedPair::get(flavor).await.old();
        let mut conn = connect(&url(server, ""), Purpose::Catalog).await.unwrap();
        let facts = ServerFacts::read(&mut conn).await.unwrap();
        let version = server.version();
        assert_eq!(
            (facts.version.major, facts.version.minor, facts.version.patch),
            (version.major, version.minor, version.patch)
        );
        assert_ne!(facts.support_level(), SupportLevel::Refused);
        let asked: Option<(u32, u64)> = conn.query_first("SELECT @@server_id, @@max_allowed_packet").await.unwrap();
        assert_eq!(Some((facts.server_id, facts.max_allowed_packet_bytes)), asked);
        assert!(!facts.identity.is_empty());
        assert!(facts.binlog.enabled && facts.has_gtids(), "{facts:?}");
        assert_eq!((facts.binlog.format.as_str(), facts.binlog.row_image.as_str()), ("ROW", "FULL"));
        assert_eq!(facts.binlog.row_metadata, "FULL");
        assert_eq!(facts.gtid_mode, if flavor == Flavor::MySql { GtidMode::On } else { GtidMode::Always });
        assert_eq!(facts.logs_cascades, flavor == Flavor::MySql && version.at_least(9, 6));
        assert!(facts.clock.micros.abs() <= facts.clock.uncertainty_micros + 1_000, "one machine: {:?}", facts.clock);

        let dialect = facts.dialect();
        for statement in [dialect.binlog_status(), dialect.binlog_files(), dialect.gtid_executed()] {
            let rows: Vec<mysql_async::Row> = conn.query(statement).await.unwrap();
            assert!(!rows.is_empty(), "{statement}");
        }
        for statement in [Some(dialect.binlog_readers()), Some(dialect.prepared_transactions()), dialect.gtid_purged()]
        {
            let Some(statement) = statement else { continue };
            conn.query_drop(statement).await.unwrap_or_else(|error| panic!("{statement}: {error}"));
        }
    }
}

/// A server that asks for `client_ed25519`, as MariaDB does for accounts of its plugin `auth_ed25519`: it is answered.
#[tokio::test]
async fn a_server_that_asks_for_ed25519_is_answered() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("mysql://sync:secret@{}/?ssl-mode=DISABLED", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let packet = |number: u8, payload: &[u8]| {
            let length = u32::try_from(payload.len()).unwrap().to_le_bytes();
            [&length[..3], &[number], payload].concat()
        };
        // Protocol 10; capabilities: protocol 4.1, secure connection, authentication by plugin.
        let greeting = [
            b"\x0a10.11.0-MariaDB\0\x01\0\0\0abcdefgh\0\x00\x82\x2d\x02\0\x08\0\x15".as_slice(),
            &[0; 10],
            b"ijklmnopqrst\0mysql_native_password\0",
        ]
        .concat();
        client.write_all(&packet(0, &greeting)).await.unwrap();
        let mut header = [0; 4];
        client.read_exact(&mut header).await.unwrap();
        let mut answer = vec![0; usize::from(header[0]) + 256 * usize::from(header[1])];
        client.read_exact(&mut answer).await.unwrap();
        let switch = b"\xfeclient_ed25519\0abcdefghijklmnopqrstuvwxyzabcdef";
        client.write_all(&packet(2, switch)).await.unwrap();
        client.read_exact(&mut header).await.unwrap();
        let mut signature = vec![0; usize::from(header[0])];
        client.read_exact(&mut signature).await.unwrap();
        client.write_all(&packet(4, b"\xff\x15\x04#28000Access denied")).await.unwrap();
        signature
    });
    let error = connect(&ServerUrl::parse(&url).unwrap(), Purpose::Catalog).await.expect_err("it refuses everybody");
    let signature = server.await.unwrap();
    assert!(signature.len() == 64 && signature.iter().any(|byte| *byte != 0), "{signature:?}");
    assert!(error.hint().is_some_and(|hint| hint.contains("password")), "{error:?}");
}

/// An administrator may bound what people ask by hand, for the whole server.
async fn no_global_setting_bounds_a_session(flavor: Flavor) {
    let server = Server::builder(flavor).relaxed().start().await.unwrap();
    let time_limit = match flavor {
        Flavor::MySql => "max_execution_time",
        Flavor::MariaDb => "max_statement_time",
    };
    let mut conn = server.connect().await.unwrap();
    conn.query_drop(format!("SET GLOBAL {time_limit} = 1, GLOBAL max_join_size = 1, GLOBAL sql_select_limit = 1"))
        .await
        .unwrap();
    for purpose in [Purpose::Catalog, Purpose::Apply, Purpose::Binlog] {
        let mut conn = connect(&url(&server, ""), purpose).await.unwrap();
        let question =
            format!("SELECT @@SESSION.{time_limit} + 0e0, @@SESSION.sql_big_selects UNION ALL SELECT 7e0, 7");
        let told: Vec<(f64, i64)> = conn.query(question).await.unwrap();
        assert_eq!(told, [(0.0, 1), (7.0, 7)], "{flavor:?} {purpose:?}");
    }
}

#[tokio::test]
async fn no_global_setting_bounds_a_session_on_both_servers() {
    no_global_setting_bounds_a_session(Flavor::MySql).await;
    no_global_setting_bounds_a_session(Flavor::MariaDb).await;
}
