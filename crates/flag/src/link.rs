//! One connection to `crossfade serve`, made anew where it is lost.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::http::uri::{Authority, Scheme};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// A flag is far shorter.
const MOST_BYTES: usize = 64 << 10;

pub(crate) trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

type Connecting = Pin<Box<dyn Future<Output = io::Result<Box<dyn Socket>>> + Send>>;

pub(crate) type Connect = Arc<dyn Fn() -> Connecting + Send + Sync>;

/// Where `crossfade serve` is.
#[derive(Clone)]
pub(crate) struct Address {
    authority: Authority,
    /// What stands before `/v1`, without a slash at its end.
    prefix: String,
}

impl Address {
    /// # Errors
    ///
    /// Why it is none, as a fragment.
    pub fn parse(url: &str) -> Result<Address, String> {
        let uri: Uri = url.parse().map_err(|_| format!("`{url}` is no address"))?;
        if uri.scheme() != Some(&Scheme::HTTP) {
            return Err(format!("`{url}` does not begin with http://, which is all that is spoken"));
        }
        let authority = uri.authority().ok_or_else(|| format!("`{url}` names no host"))?.clone();
        if authority.as_str().contains('@') || uri.query().is_some() {
            return Err("the address takes neither an account nor a query".to_owned());
        }
        Ok(Address { authority, prefix: uri.path().trim_end_matches('/').to_owned() })
    }

    pub fn tcp(&self) -> Connect {
        let host = self.authority.host().trim_matches(['[', ']']).to_owned();
        let port = self.authority.port_u16().unwrap_or(80);
        Arc::new(move || {
            let host = host.clone();
            Box::pin(async move {
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream) as Box<dyn Socket>)
            })
        })
    }
}

pub(crate) struct Answer {
    pub status: u16,
    pub body: Bytes,
}

pub(crate) struct Link {
    connect: Connect,
    address: Address,
    /// Only while nothing is asked: a question that is given up takes its connection with it.
    idle: Option<SendRequest<Full<Bytes>>>,
}

impl Link {
    pub fn new(connect: Connect, address: Address) -> Link {
        Link { connect, address, idle: None }
    }

    /// One question, and its answer within `limit`. Whether a question without an answer has arrived is not known.
    ///
    /// # Errors
    ///
    /// Why there is no answer, as a fragment.
    pub async fn ask(&mut self, limit: Duration, method: Method, path: &str, body: String) -> Result<Answer, String> {
        let answering = self.exchange(method, path, body);
        tokio::time::timeout(limit, answering).await.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")))
    }

    async fn exchange(&mut self, method: Method, path: &str, body: String) -> Result<Answer, String> {
        let http = |error: hyper::Error| format!("it does not answer as HTTP asks for: {error}");
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.address.prefix))
            .header(HOST, self.address.authority.as_str())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| format!("the request cannot be written: {error}"))?;
        let mut sender = match self.idle.take().filter(|sender| !sender.is_closed()) {
            Some(sender) => sender,
            None => self.open().await?,
        };
        sender.ready().await.map_err(http)?;
        let response = sender.send_request(request).await.map_err(http)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), MOST_BYTES).collect().await;
        let body = body.map_err(|error| format!("its answer cannot be read: {error}"))?.to_bytes();
        self.idle = Some(sender);
        Ok(Answer { status, body })
    }

    async fn open(&self) -> Result<SendRequest<Full<Bytes>>, String> {
        let reach = |error: io::Error| format!("{} cannot be reached: {error}", self.address.authority);
        let socket = (self.connect)().await.map_err(reach)?;
        let opened = handshake(TokioIo::new(socket)).await;
        let (sender, connection) = opened.map_err(|error| format!("it does not speak HTTP: {error}"))?;
        // Ends when the sender is dropped, or the server closes it; its error is told to who asks.
        tokio::spawn(connection);
        Ok(sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_without_tls_are_taken() {
        for good in ["http://a:8420", "http://10.0.0.1", "http://[::1]:8420/crossfade/"] {
            assert!(Address::parse(good).is_ok(), "{good}");
        }
        assert_eq!(Address::parse("http://a/b/").map(|address| address.prefix), Ok("/b".to_owned()));
        for bad in ["https://a", "a:8420", "/v1", "", "http://u:p@a", "http://a/?x=1"] {
            assert!(Address::parse(bad).is_err(), "{bad}");
        }
    }
}
