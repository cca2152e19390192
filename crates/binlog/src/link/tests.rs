//! The connection of our own against real servers, and against one that wants the password.

use crossfade_catalog::{Purpose, connect};
use crossfade_config::ServerUrl;
use crossfade_servers::{Flavor, Server, SharedPair};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use mysql_common::constants::{CapabilityFlags, StatusFlags};
use mysql_common::packets::BinlogDumpFlags;
use mysql_common::packets::HandshakePacket;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;

fn url(server: &Server, options: &str) -> ServerUrl {
    ServerUrl::parse(&format!("{}{options}", server.root_url())).unwrap()
}

async fn opened(url: &ServerUrl) -> Result<Link, BinlogError> {
    // What is asked of the source goes over another connection, which here is always root's.
    let plain = ServerUrl { tls_mode: crossfade_config::TlsMode::Preferred, tls_ca: None, ..url.clone() };
    let root = ServerUrl { user: "root".to_owned(), password: crossfade_config::Secret::new(""), ..plain };
    let mut conn = connect(&root, Purpose::Catalog).await.unwrap();
    let source = Source::ask(&mut conn, &url.address()).await.unwrap();
    let server_id = source.free_server_id(&mut conn).await.unwrap();
    let request = BinlogRequest::new(server_id).with_flags(BinlogDumpFlags::BINLOG_DUMP_NON_BLOCK);
    let aware = "SET @source_binlog_checksum = 'CRC32', @master_binlog_checksum = 'CRC32'";
    Link::own(url, &source, &[aware.to_owned()], &request).await
}

/// Whether events come over a connection of this URL.
async fn reads(url: &ServerUrl) -> Result<(), BinlogError> {
    let mut link = opened(url).await?;
    let mut events = 0;
    loop {
        match link.next().await {
            Ok(_) => events += 1,
            Err(NoEvent::Ended) => break,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(events > 2, "{events} events");
    Ok(())
}

async fn account(conn: &mut Conn, name: &str, identified: &str, also: &str) {
    conn.query_drop(format!("CREATE USER {name}@'%' {identified} {also}")).await.unwrap();
    conn.query_drop(format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {name}@'%'")).await.unwrap();
}

fn as_user(server: &Server, name: &str, password: &str, options: &str) -> ServerUrl {
    let url = url(server, options);
    ServerUrl { user: name.to_owned(), password: crossfade_config::Secret::new(password), ..url }
}

/// As for every other connection: see the tests of the catalog.
#[tokio::test]
async fn encryption_follows_the_url() {
    let server = SharedPair::get(Flavor::MySql).await.old();
    let own_ca = server.data_dir().join("ca.pem").display().to_string();
    let other_ca = server.data_dir().join("client-cert.pem").display().to_string();
    let mut conn = server.connect().await.unwrap();
    account(&mut conn, "link_tls", "IDENTIFIED BY 'Pass-1'", "REQUIRE SSL").await;
    for options in ["", "?ssl-mode=REQUIRED", &format!("?ssl-mode=VERIFY_CA&ssl-ca={own_ca}")] {
        let read = reads(&as_user(server, "link_tls", "Pass-1", options)).await;
        read.unwrap_or_else(|error| panic!("{options}: {error:?}"));
    }
    // The account proves that the others were encrypted.
    let plain = reads(&as_user(server, "link_tls", "Pass-1", "?ssl-mode=DISABLED")).await.unwrap_err();
    assert!(plain.to_string().contains("cannot connect"), "{plain:?}");
    let refused = [
        format!("?ssl-mode=VERIFY_CA&ssl-ca={other_ca}"),
        "?ssl-mode=VERIFY_CA".to_owned(),
        "?ssl-mode=VERIFY_IDENTITY".to_owned(),
        format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={own_ca}"),
    ];
    for options in refused {
        let error = reads(&url(server, &options)).await.expect_err(&options);
        assert!(error.hint().is_some_and(|hint| hint.contains("ssl-ca")), "{options}: {error:?}");
    }
    // The file is named where it is what is wrong.
    let missing = reads(&url(server, "?ssl-mode=VERIFY_CA&ssl-ca=/nowhere/ca.pem")).await.unwrap_err();
    let junk = server.data_dir().join("auto.cnf").display().to_string();
    let junk = reads(&url(server, &format!("?ssl-mode=VERIFY_CA&ssl-ca={junk}"))).await.unwrap_err();
    for error in [missing, junk] {
        assert!(matches!(error, BinlogError::Catalog(CatalogError::Certificates { .. })), "{error:?}");
    }
    // A server without TLS.
    let bare = SharedPair::get(Flavor::MariaDb).await.old();
    reads(&url(bare, "?ssl-mode=PREFERRED")).await.unwrap();
    for options in ["?ssl-mode=REQUIRED", "?ssl-mode=VERIFY_CA", "?ssl-mode=VERIFY_IDENTITY"] {
        let error = reads(&url(bare, options)).await.unwrap_err();
        assert!(matches!(error, BinlogError::Catalog(CatalogError::NoTls { .. })), "{options}: {error:?}");
    }
    reads(&url(bare, &format!("?socket={}", bare.socket().display()))).await.unwrap();
}

/// VERIFY_IDENTITY with a certificate that does name the host, and with one that names another; VERIFY_CA takes both.
#[tokio::test]
async fn certificates_name_their_host() {
    let folder = tempfile::tempdir().unwrap();
    for (name, accepted) in [("IP:127.0.0.1", true), ("DNS:elsewhere.example", false)] {
        let (key, certificate) = (folder.path().join("key.pem"), folder.path().join("cert.pem"));
        let made = std::process::Command::new("openssl")
            .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=test", "-addext"])
            .arg(format!("subjectAltName={name}"))
            .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate)
            .output()
            .expect("openssl, from the distribution's package of that name");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let server = Server::builder(Flavor::MariaDb)
            .relaxed()
            .option("ssl_key", key.to_str().unwrap())
            .option("ssl_cert", certificate.to_str().unwrap())
            .start()
            .await
            .unwrap();
        let ca = certificate.display();
        reads(&url(&server, &format!("?ssl-mode=VERIFY_CA&ssl-ca={ca}"))).await.unwrap();
        let named = reads(&url(&server, &format!("?ssl-mode=VERIFY_IDENTITY&ssl-ca={ca}"))).await;
        assert_eq!(named.is_ok(), accepted, "{name}: {named:?}");
    }
}

/// Both plugins, in each of their ways; and what is refused, is refused as the driver would.
#[tokio::test]
async fn accounts_log_in() {
    let server = SharedPair::get(Flavor::MySql).await.old();
    let mut conn = server.connect().await.unwrap();
    let long = "p".repeat(150);
    for (name, password) in [("link_short", "Pass-1"), ("link_long", &long), ("link_empty", "")] {
        account(&mut conn, name, &format!("IDENTIFIED WITH caching_sha2_password BY '{password}'"), "").await;
        let socket = format!("?socket={}", server.socket().display());
        for options in ["?ssl-mode=DISABLED", "?ssl-mode=REQUIRED", &socket] {
            // Without memory of the account the server wants the password, with it a scramble; so twice.
            conn.query_drop("FLUSH PRIVILEGES").await.unwrap();
            for _ in 0..2 {
                let read = reads(&as_user(server, name, password, options)).await;
                read.unwrap_or_else(|error| panic!("{name} {options}: {error:?}"));
            }
        }
        let error = reads(&as_user(server, name, "wrong", "?ssl-mode=DISABLED")).await.unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("user and password")), "{error:?}");
        assert!(!error.is_transient() && !format!("{error:?}").contains("wrong"), "{error:?}");
    }
    conn.query_drop("CREATE USER link_poor@'%' IDENTIFIED BY 'Pass-1'").await.unwrap();
    let error = reads(&as_user(server, "link_poor", "Pass-1", "")).await.unwrap_err();
    assert!(
        matches!(&error, BinlogError::Query { what: "COM_REGISTER_SLAVE", .. }) && !error.is_transient(),
        "{error:?}"
    );

    // An account of another plugin than the server's greeting says: the server asks to switch.
    let server = Server::builder(Flavor::MySql)
        .relaxed()
        .option("authentication_policy", "sha256_password,,")
        .start()
        .await
        .unwrap();
    let mut conn = server.connect().await.unwrap();
    account(&mut conn, "link_switch", "IDENTIFIED WITH caching_sha2_password BY 'Pass-1'", "").await;
    reads(&as_user(&server, "link_switch", "Pass-1", "?ssl-mode=DISABLED")).await.unwrap();
    account(&mut conn, "link_other", "IDENTIFIED WITH sha256_password BY 'Pass-1'", "").await;
    let error = reads(&as_user(&server, "link_other", "Pass-1", "")).await.unwrap_err();
    assert!(format!("{error:?}").contains("UnknownAuthPlugin"), "{error:?}");

    let server = SharedPair::get(Flavor::MariaDb).await.old();
    let mut conn = server.connect().await.unwrap();
    account(&mut conn, "link_native", "IDENTIFIED VIA mysql_native_password USING PASSWORD('Pass-1')", "").await;
    reads(&as_user(server, "link_native", "Pass-1", "")).await.unwrap();
    assert!(reads(&as_user(server, "link_native", "wrong", "")).await.is_err());
}

fn greeting(plugin: &str) -> Vec<u8> {
    let capabilities = CapabilityFlags::all() & !CapabilityFlags::CLIENT_SSL;
    login::bytes(&HandshakePacket::new(
        10,
        &b"8.4.0"[..],
        1,
        [7; 8],
        Some(&[8; 13][..]),
        capabilities,
        45,
        StatusFlags::empty(),
        Some(plugin.as_bytes()),
    ))
}

/// Plays a server that greets and then says what it is told to. Gives how the login ended, and what was sent.
async fn against(hello: &[u8], answers: &[&[u8]]) -> (Result<(), mysql_async::Error>, Vec<u8>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = ServerUrl::parse(&format!("mysql://root:sesame@127.0.0.1:{port}?ssl-mode=PREFERRED")).unwrap();
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        // At once, since not every answer is one to something; then it hears what there is to hear.
        for (nth, answer) in std::iter::once(hello).chain(answers.iter().copied()).enumerate() {
            let packet = [&(answer.len() as u32).to_le_bytes()[..3], &[2 * nth as u8], answer].concat();
            let _ = stream.write_all(&packet).await;
        }
        let _ = stream.shutdown().await;
        let mut sent = Vec::new();
        let _ = stream.read_to_end(&mut sent).await;
        sent
    };
    let client = async { login::log_in(&url, Encryption::of(&url).await.unwrap()).await.map(drop) };
    tokio::join!(client, server)
}

#[tokio::test]
async fn nobody_gets_the_password_who_only_asks() {
    let clear = [&[0xfe][..], b"mysql_clear_password\0"].concat();
    let old = [&[0xfe][..], b"mysql_old_password\0abcdefgh\0"].concat();
    let ed25519 = [&[0xfe][..], b"client_ed25519\0abcdefghijklmnopqrstabcdefghijkl\0"].concat();
    let again = [&[0xfe][..], b"caching_sha2_password\0abcdefghijklmnopqrst\0"].concat();
    let factor = [&[2][..], b"caching_sha2_password\0abcdefghijklmnopqrst\0"].concat();
    let long_key =
        [&[1][..], b"-----BEGIN PUBLIC KEY-----\n", &[b'A'; 60_000], b"\n-----END PUBLIC KEY-----\n"].concat();
    let bad_key = [&[1][..], b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"].concat();
    let tricks: [(&str, Vec<&[u8]>); 12] = [
        ("mysql_clear_password", vec![&clear]),
        ("caching_sha2_password", vec![&clear]),
        ("caching_sha2_password", vec![&old]),
        ("caching_sha2_password", vec![&[0xfe]]),
        ("caching_sha2_password", vec![&again, &again]),
        ("caching_sha2_password", vec![&ed25519]),
        ("caching_sha2_password", vec![&factor]),
        // No key, one that would take very long, a key that is none, and a demand that only the other plugin has.
        ("caching_sha2_password", vec![&[1, 4], &[7, 7, 7]]),
        ("caching_sha2_password", vec![&[1, 4], &long_key]),
        ("caching_sha2_password", vec![&[1, 4], &bad_key]),
        ("mysql_native_password", vec![&[1, 4]]),
        ("caching_sha2_password", vec![&[]]),
    ];
    for (plugin, answers) in tricks {
        let (ended, sent) = against(&greeting(plugin), &answers).await;
        let error = ended.expect_err(plugin);
        assert!(sent.windows(4).any(|bytes| bytes == b"root"), "no login was tried");
        assert!(!sent.windows(6).any(|bytes| bytes == b"sesame"), "{plugin} {answers:?}");
        assert!(!format!("{error:?}").contains("sesame"), "{error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever a server says, the login ends, in an error or not, and the password does not leave.
    #[test]
    fn no_greeting_and_no_answer_panics(
        at in 0_usize..80,
        byte: u8,
        cut in 0_usize..100,
        kinds in proptest::collection::vec((proptest::sample::select(vec![0_u8, 1, 2, 0xfe, 0xff]), 0_u8..6), 0..4),
        tail in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut hello = greeting("caching_sha2_password");
        if let Some(place) = hello.get_mut(at) {
            *place = byte;
        }
        hello.truncate(cut.max(1));
        let answers: Vec<Vec<u8>> = kinds.iter().map(|(kind, next)| [&[*kind, *next], &tail[..]].concat()).collect();
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (_, sent) = runtime.block_on(against(&hello, &answers));
        prop_assert!(!sent.windows(6).any(|bytes| bytes == b"sesame"));
    }
}

#[tokio::test]
async fn what_greets_otherwise_is_no_server() {
    // Where the greeting tells the length of its nonce, some lengths make its parser overflow.
    for length in 0x78..0x90 {
        let mut hello = greeting("caching_sha2_password");
        let at = hello.len() - b"caching_sha2_password\0".len() - 13 - 10 - 1;
        assert_eq!(hello[at], 21);
        hello[at] = length;
        assert!(against(&hello, &[]).await.0.is_err(), "{length}");
    }
    let old_protocol = [&[9][..], &greeting("mysql_native_password")[1..]].concat();
    let too_many = [&[0xff, 0x10, 0x04][..], b"Too many connections"].concat();
    for (hello, told) in [
        (&b""[..], "Io"),
        (b"HTTP/1.1 400 Bad Request", "Io"),
        (&old_protocol, "UnknownAuthPlugin"),
        (&too_many, "1040"),
    ] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = ServerUrl::parse(&format!("mysql://root@127.0.0.1:{port}")).unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let packet = [&(hello.len() as u32).to_le_bytes()[..], hello].concat();
            stream.write_all(&packet).await.unwrap();
        };
        let (ended, ()) = tokio::join!(login::log_in(&url, Encryption::of(&url).await.unwrap()), server);
        let error = ended.map(drop).unwrap_err();
        assert!(format!("{error:?}").contains(told), "{error:?}");
    }
}

#[tokio::test]
async fn silence_ends() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = ServerUrl::parse(&format!("mysql://root@127.0.0.1:{port}")).unwrap();
    let patience = 2 * LOGIN_TIME_OUT;
    let ended = tokio::time::timeout(patience, log_in(&url)).await.expect("it ends").map(drop);
    assert!(matches!(ended, Err(CatalogError::TimedOut { .. })), "{ended:?}");
}
