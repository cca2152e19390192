//! Seeing changes arrive.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Between two looks; a look itself takes a fraction of it.
const POLL: Duration = Duration::from_micros(500);

/// Looks at the target again and again until it is told how many changes there are and has seen them all.
#[derive(Debug)]
pub struct Watcher {
    wanted: watch::Sender<Option<Wanted>>,
    watching: JoinHandle<Result<Vec<Instant>>>,
}

#[derive(Debug, Clone, Copy)]
struct Wanted {
    changes: u64,
    until: Instant,
}

impl Watcher {
    pub fn start(conn: Conn) -> Watcher {
        let (wanted, is_wanted) = watch::channel(None);
        Watcher { wanted, watching: tokio::spawn(look(conn, is_wanted)) }
    }

    /// When each change was seen first, by its number; the place of number 0 means nothing.
    pub async fn until_seen(self, changes: u64, limit: Duration) -> Result<Vec<Instant>> {
        self.wanted.send_replace(Some(Wanted { changes, until: Instant::now() + limit }));
        self.watching.await.context("the watcher's task ended")?
    }
}

async fn look(mut conn: Conn, wanted: watch::Receiver<Option<Wanted>>) -> Result<Vec<Instant>> {
    let mut seen: Vec<Option<Instant>> = vec![Some(Instant::now())];
    // Everything below has been seen.
    let mut first_missing = 1;
    loop {
        let question = format!("SELECT number FROM bench.beat FORCE INDEX (number) WHERE number >= {first_missing}");
        let numbers: Vec<u64> = conn.query(question).await?;
        let now = Instant::now();
        for number in numbers {
            let place = usize::try_from(number)?;
            if seen.len() <= place {
                seen.resize(place + 1, None);
            }
            seen[place].get_or_insert(now);
        }
        while seen.get(first_missing).is_some_and(Option::is_some) {
            first_missing += 1;
        }
        let wanted = *wanted.borrow();
        if let Some(Wanted { changes, until }) = wanted {
            if first_missing as u64 > changes {
                return Ok(seen.into_iter().map_while(|seen| seen).collect());
            }
            ensure!(now < until, "change {first_missing} of {changes} has not arrived");
        }
        // The runtime's own timer is too coarse: it counts whole milliseconds.
        tokio::task::block_in_place(|| std::thread::sleep(POLL));
    }
}
