//! Questions over HTTP/1.1, one at a time over one connection, as applications' clients ask.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

/// Longer than anybody lets a client wait.
const LIMIT: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub struct HttpClient {
    address: String,
    /// From the last answer; none before the first question, and after one that was not answered.
    connection: Option<BufReader<TcpStream>>,
}

/// Code and body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub code: u16,
    pub body: String,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum Unanswered {
    /// Nobody listens: the question was not asked.
    NotAsked(std::io::Error),
    /// It may have had its effect.
    Lost(anyhow::Error),
}

impl HttpClient {
    /// Connects with the first question.
    pub fn new(address: &str) -> HttpClient {
        HttpClient { address: address.to_owned(), connection: None }
    }

    /// Asks, and waits for the answer.
    pub async fn ask(&mut self, method: &str, path: &str, body: &str) -> Result<Answer, Unanswered> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => BufReader::new(TcpStream::connect(&self.address).await.map_err(Unanswered::NotAsked)?),
        };
        let length = body.len();
        let question = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}",
            self.address
        );
        let exchanged = tokio::time::timeout(LIMIT, exchange(&mut connection, &question)).await;
        let (answer, goes_on) = exchanged
            .unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {LIMIT:?}")))
            .with_context(|| format!("{method} {path}"))
            .map_err(Unanswered::Lost)?;
        if goes_on {
            self.connection = Some(connection);
        }
        Ok(answer)
    }
}

/// The answer, and whether the connection takes another question.
async fn exchange(connection: &mut BufReader<TcpStream>, question: &str) -> Result<(Answer, bool)> {
    connection.get_mut().write_all(question.as_bytes()).await?;
    let first = line(connection).await?;
    let code = first.split(' ').nth(1).context("no code")?.parse()?;
    let (mut length, mut goes_on) = (0, true);
    loop {
        let line = line(connection).await?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(':').context("a header without a value")?;
        match (name, value.trim()) {
            ("content-length", bytes) => length = bytes.parse()?,
            ("connection", "close") => goes_on = false,
            ("transfer-encoding", _) => bail!("an answer in parts"),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    Ok((Answer { code, body: String::from_utf8(body)? }, goes_on))
}

async fn line(connection: &mut BufReader<TcpStream>) -> Result<String> {
    let mut line = String::new();
    if connection.read_line(&mut line).await? == 0 {
        bail!("the connection has ended");
    }
    Ok(line.trim_end().to_owned())
}

impl From<Unanswered> for anyhow::Error {
    fn from(unanswered: Unanswered) -> anyhow::Error {
        match unanswered {
            Unanswered::NotAsked(error) => anyhow::Error::new(error).context("nobody listens"),
            Unanswered::Lost(error) => error,
        }
    }
}
