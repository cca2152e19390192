//! Which side to read and to write while crossfade moves a MySQL database, for applications.
//!
//! A client follows the *flag* of one migration at `crossfade serve`, by long-poll in a task of its own: asking it costs nothing
//! and never waits for the network. Each write is done under a [`WriteGuard`], so that a cutover knows when nobody writes by an
//! old version of the flag any more. `docs/flag.md` of crossfade has the phases and the HTTP API.
//!
//! ```
//! # use std::io::{Read, Write};
//! use crossfade_flag::{FlagClient, FlagError, Side};
//!
//! # /// Stands for `crossfade serve`: the flag says `read_new`.
//! # fn serve() -> std::io::Result<std::net::SocketAddr> {
//! #     let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! #     let address = listener.local_addr()?;
//! #     std::thread::spawn(move || while let Ok((mut socket, _)) = listener.accept() {
//! #         std::thread::spawn(move || {
//! #             let mut asked = [0; 4096];
//! #             while socket.read(&mut asked).is_ok_and(|read| read > 0) {
//! #                 if asked.starts_with(b"{") {
//! #                     continue;
//! #                 }
//! #                 let body = r#"{"pair":"users","version":7,"flag":2,"phase":"read_new","fenced":false}"#;
//! #                 let (code, body) = if asked.starts_with(b"DELETE") { ("204 No Content", "") } else { ("200 OK", body) };
//! #                 let length = format!("Content-Length: {}\r\n", body.len());
//! #                 let length = if body.is_empty() { String::new() } else { length };
//! #                 let _ = write!(socket, "HTTP/1.1 {code}\r\n{length}\r\n{body}");
//! #             }
//! #         });
//! #     });
//! #     Ok(address)
//! # }
//! async fn rename(flag: &FlagClient) -> Result<(), FlagError> {
//!     let guard = flag.begin_write().await?;          // waits at a fence; an error: answer 503, the caller comes again
//!     let _database = match guard.side() {
//!         Side::Old => "mysql://old/app",
//!         Side::New => "mysql://new/app",
//!     };
//!     // … BEGIN; UPDATE users SET name = … on that side …
//!     if !guard.is_still_valid() {
//!         // … ROLLBACK …
//!         return Err(FlagError::Unknown { reason: "the write took too long".to_owned() });
//!     }
//!     // … COMMIT; only when its outcome is known:
//!     drop(guard);
//!     Ok(())
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let url = format!("http://{}", serve()?);
//! let flag = FlagClient::builder(url).instance("web-1").connect().await?;
//! assert!(flag.is_read_new()?);
//! rename(&flag).await?;
//! flag.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! Where users move one by one (`[entity]` in crossfade's configuration), an [`EntityClient`] asks for each of them instead:
//! `docs/entities.md` of crossfade tells how.
//!
//! # What it promises
//!
//! - Nobody gets leave to write by a version that is older than one that this instance has acknowledged; and no version is
//!   acknowledged while a guard of an earlier one lives, however long that is.
//! - A fence ends by a later version from the server, never by this machine's clock.
//! - What the server has not confirmed for `max_age` is not used. Ages count from *before* the question was sent.
//! - The server stops waiting for an instance that it has not heard for `ttl`. Before that, by the monotonic clock of this machine, and
//!   again counted from before the promise was sent, no write is let in any more, and every guard says that it is not
//!   [valid](WriteGuard::is_still_valid). It stays so for these guards, also when the server is back.
//! - A version that goes back, as that of a restored store, is taken only from an answer to a later question; nothing is written
//!   until this instance is registered there.
//!
//! # How it fails
//!
//! Reads fail with [`FlagError::Unknown`] unless a [`Fallback`] is set; writes fail with that or [`FlagError::Fenced`], and never
//! fall back: not to write is always right. All of it may be over at any moment. Answers that are no flag, slow answers and
//! refusals count as none; [`FlagClient::trouble`] tells the last one.
//!
//! # What the application must do
//!
//! - Hold the guard until the outcome of COMMIT or ROLLBACK is known, also where its own caller goes away: a web framework drops the
//!   handler of a request whose caller has hung up, with the guard in it and COMMIT on its way. Write in a task of its own
//!   (`tokio::spawn`).
//! - Ask [`WriteGuard::is_still_valid`] before COMMIT, or bound the work before it by [`WriteGuard::expired`].
//! - Not keep guards for later: one that is forgotten makes every cutover give up. The instance stays listed by its name with the
//!   version that it still writes by.
//! - Write nothing without a guard, also in jobs, scripts and migrations.
//!
//! A process that was stopped for a while (SIGSTOP, a paused virtual machine) right between asking and COMMIT cannot know. Where that
//! must not count, the cutover fences with `read_only` or by taking the account's privileges as well.
//!
//! *Absent:* TLS (`http://` only), any crate of crossfade, any database, and logs.

mod client;
mod document;
mod entity;
mod entity_document;
mod entity_guard;
mod error;
mod follow;
mod guard;
mod link;
mod phase;
mod state;

pub use client::{Builder, Fallback, FlagClient};
pub use entity::{EntityBuilder, EntityClient};
pub use entity_guard::EntityGuard;
pub use error::FlagError;
pub use guard::WriteGuard;
pub use phase::{Flag, Phase, Side};

#[cfg(test)]
mod tests;
