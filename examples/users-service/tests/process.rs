//! The process without anybody to tell it the flag.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};

/// Code and body.
fn ask(address: &str, method: &str, path: &str, body: &str) -> (u16, String) {
    let mut connection = TcpStream::connect(address).unwrap();
    let head = "Host: x\r\nConnection: close\r\nContent-Type: application/json";
    let length = body.len();
    write!(connection, "{method} {path} HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[test]
fn without_the_flag_it_writes_nothing_and_ends_when_asked() {
    // Nobody listens at port 1.
    let mut service = Command::new(env!("CARGO_BIN_EXE_users-service"))
        .args(["--instance", "web-1", "--listen", "127.0.0.1:0", "--flag-url", "http://127.0.0.1:1"])
        .env("USERS_OLD_URL", "mysql://app:0pen-s3same@127.0.0.1:1/app")
        .env("USERS_NEW_URL", "mysql://app:0pen-s3same@127.0.0.1:1/app")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(service.stderr.take().unwrap());
    let mut line = String::new();
    told.read_line(&mut line).unwrap();
    let address = line.strip_prefix("http://").and_then(|rest| rest.split_once(": ")).map(|(address, _)| address);
    let address = address.unwrap_or_else(|| panic!("{line}"));

    let (code, body) = ask(address, "GET", "/healthz", "");
    assert_eq!(code, 503, "{body}");
    assert!(body.contains("\"instance\":\"web-1-"), "{body}");
    let user = r#"{"email":"ada@example.com","name":"Ada"}"#;
    for (method, path) in [("POST", "/users"), ("PUT", "/users/1")] {
        let (code, body) = ask(address, method, path, user);
        assert_eq!(code, 503, "{body}");
        assert!(body.contains("\"outcome\":\"not_written\"") && !body.contains("s3same"), "{body}");
    }
    assert_eq!(ask(address, "GET", "/users/1", "").0, 503);
    let (code, body) = ask(address, "POST", "/users", "{\"email\":1}");
    assert_eq!(code, 400, "{body}");

    assert!(Command::new("kill").arg(service.id().to_string()).status().unwrap().success());
    let status = service.wait().unwrap();
    let mut rest = String::new();
    told.read_to_string(&mut rest).unwrap();
    assert!(status.success(), "{status}: {rest}");
    assert!(!rest.contains("s3same"), "{rest}");
}
