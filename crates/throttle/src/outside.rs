//! Numbers that something outside tells: a command, or an address.

use std::process::Stdio;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::process::Command;

/// A number needs no more.
const MOST_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
pub(crate) enum OutsideError {
    #[error("it cannot be run: {0}")]
    Run(#[source] std::io::Error),
    #[error("it ended with {0}")]
    Ended(std::process::ExitStatus),
    #[error("the address has no host")]
    Host,
    #[error("it cannot be reached: {0}")]
    Reach(#[source] std::io::Error),
    #[error("it does not answer as HTTP asks for: {0}")]
    Http(#[source] hyper::Error),
    #[error("it answers with {0}")]
    Status(hyper::StatusCode),
    #[error("its answer cannot be read")]
    Body,
    #[error("it does not begin with a number")]
    Number,
}

/// The number that a probe tells: the first word of a command's output, or of an address's answer.
pub(crate) async fn ask(probe: &str) -> Result<f64, OutsideError> {
    let told = if probe.starts_with("http://") { get(probe).await? } else { run(probe).await? };
    let number = told.split_whitespace().next().and_then(|word| word.parse::<f64>().ok());
    number.filter(|number| number.is_finite()).ok_or(OutsideError::Number)
}

async fn run(command: &str) -> Result<String, OutsideError> {
    let ended = Command::new("sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        // Whoever waits too long for it drops it.
        .kill_on_drop(true)
        .output()
        .await
        .map_err(OutsideError::Run)?;
    if !ended.status.success() {
        return Err(OutsideError::Ended(ended.status));
    }
    Ok(String::from_utf8_lossy(&ended.stdout[..ended.stdout.len().min(MOST_BYTES)]).into_owned())
}

async fn get(address: &str) -> Result<String, OutsideError> {
    let uri: Uri = address.parse().map_err(|_| OutsideError::Host)?;
    let authority = uri.authority().ok_or(OutsideError::Host)?.clone();
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await.map_err(OutsideError::Reach)?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(OutsideError::Http)?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::get(path).header(hyper::header::HOST, authority.as_str()).body(Empty::<Bytes>::new());
    let answering = async {
        let response =
            sender.send_request(request.map_err(|_| OutsideError::Host)?).await.map_err(OutsideError::Http)?;
        if !response.status().is_success() {
            return Err(OutsideError::Status(response.status()));
        }
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await.map_err(|_| OutsideError::Body)?;
        Ok(String::from_utf8_lossy(&body.to_bytes()).into_owned())
    };
    tokio::pin!(answering);
    tokio::select! {
        told = &mut answering => told,
        // The answer may have come with the end of the connection.
        _ = connection => answering.await,
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn commands_tell_numbers() {
        assert_eq!(ask("echo 12.5 percent").await.unwrap(), 12.5);
        assert!(matches!(ask("echo busy").await, Err(OutsideError::Number)));
        assert!(matches!(ask("echo 1; exit 3").await, Err(OutsideError::Ended(_))));
    }

    #[tokio::test]
    async fn addresses_tell_numbers() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/load?of=old", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            for answer in
                ["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n80\n", "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"]
            {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut asked = [0; 1024];
                let read = stream.read(&mut asked).await.unwrap();
                assert!(asked[..read].starts_with(b"GET /load?of=old HTTP/1.1\r\n"));
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        });
        assert_eq!(ask(&address).await.unwrap(), 80.0);
        assert!(matches!(ask(&address).await, Err(OutsideError::Status(_))));
        serving.await.unwrap();
        assert!(matches!(ask(&address).await, Err(OutsideError::Reach(_))));
    }
}
