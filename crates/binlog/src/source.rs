//! What a source says of itself: who it is, where its binlog stands, what it has purged.

use crossfade_catalog::ServerFacts;
use crossfade_model::{GtidSet, MariaDbGtidPosition, Position};
use mysql_async::Conn;
use mysql_async::prelude::{FromRow, Queryable};
use rand::Rng;

use crate::BinlogError;
use crate::decode::Flavor;

/// Server ids are drawn from this range: far from those that people give to their servers.
const SERVER_IDS: std::ops::RangeInclusive<u32> = 3_000_000_000..=4_294_900_000;
const SERVER_ID_ATTEMPTS: u32 = 20;

/// A source as the reader needs to know it. Asked anew at each connection, since a URL can lead to another server.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub address: String,
    pub flavor: Flavor,
    pub facts: ServerFacts,
}

impl Source {
    pub async fn ask(conn: &mut Conn, address: &str) -> Result<Source, BinlogError> {
        let facts = ServerFacts::read(conn).await?;
        if !facts.binlog.enabled {
            return Err(BinlogError::BinlogOff { server: address.to_owned() });
        }
        let flavor = match facts.flavor() {
            crossfade_catalog::Flavor::MySql => Flavor::MySql,
            crossfade_catalog::Flavor::MariaDb => Flavor::MariaDb,
        };
        Ok(Source { address: address.to_owned(), flavor, facts })
    }

    /// Table names do not depend on case.
    pub fn folds_names(&self) -> bool {
        self.facts.lower_case_table_names != 0
    }

    /// The end of the binlog in the form that survives most: GTIDs where the server has them.
    pub async fn current_position(&self, conn: &mut Conn) -> Result<Position, BinlogError> {
        match self.flavor {
            Flavor::MariaDb => Ok(Position::MariaDb { gtid: self.maria_binlog_position(conn).await? }),
            Flavor::MySql if self.facts.has_gtids() => Ok(Position::MySql { executed: self.executed(conn).await? }),
            Flavor::MySql => self.current_file_position(conn).await,
        }
    }

    pub async fn current_file_position(&self, conn: &mut Conn) -> Result<Position, BinlogError> {
        let row: Option<mysql_async::Row> = self.first(conn, self.facts.dialect().binlog_status()).await?;
        let place = row.and_then(|row| Some((row.get::<String, _>(0)?, row.get::<u64, _>(1)?)));
        let (file, offset) = place.ok_or_else(|| BinlogError::BinlogOff { server: self.address.clone() })?;
        Ok(Position::File { server: self.facts.identity.clone(), file, offset })
    }

    /// Refuses a position that this server cannot go on from.
    pub async fn check_start(&self, conn: &mut Conn, start: &Position) -> Result<(), BinlogError> {
        match (start, self.flavor) {
            (Position::MySql { executed }, Flavor::MySql) => self.check_gtid_set(conn, executed).await,
            (Position::MariaDb { gtid }, Flavor::MariaDb) => self.check_maria_position(conn, gtid).await,
            (Position::File { server, file, offset }, _) => {
                if *server != self.facts.identity {
                    return Err(BinlogError::WrongServer {
                        server: self.address.clone(),
                        position: Box::new(start.clone()),
                        expected: server.clone(),
                        found: self.facts.identity.clone(),
                    });
                }
                self.check_file(conn, file, *offset).await
            }
            _ => Err(BinlogError::PositionKind { server: self.address.clone(), position: Box::new(start.clone()) }),
        }
    }

    async fn check_gtid_set(&self, conn: &mut Conn, start: &GtidSet) -> Result<(), BinlogError> {
        let executed = self.executed(conn).await?;
        let purged = match self.facts.dialect().gtid_purged() {
            Some(query) => self.gtid_set(conn, query).await?,
            None => GtidSet::default(),
        };
        let (gone, ahead) = (purged.subtract(start), start.subtract(&executed));
        if !gone.is_empty() {
            return Err(self.purged(format!("transactions {gone}")));
        }
        if !ahead.is_empty() {
            return Err(self.ahead(format!("transactions {ahead}")));
        }
        Ok(())
    }

    async fn check_maria_position(&self, conn: &mut Conn, start: &MariaDbGtidPosition) -> Result<(), BinlogError> {
        let oldest = match self.maria_oldest_position(conn).await {
            Ok(oldest) => oldest,
            // Without the privilege to look, the server's own refusal of the dump must do.
            Err(mysql_async::Error::Server(_)) => MariaDbGtidPosition::default(),
            Err(source) => return Err(self.refused("SHOW BINLOG EVENTS")(source)),
        };
        let gone: Vec<String> = oldest
            .domains
            .iter()
            .map(|(domain, (server, sequence))| {
                (domain, server, sequence, start.domains.get(domain).map_or(0, |at| at.1))
            })
            .filter(|(_, _, sequence, begin)| begin < *sequence)
            .map(|(domain, server, sequence, begin)| format!("{domain}-{server}-{} to {sequence}", begin + 1))
            .collect();
        if !gone.is_empty() {
            return Err(self.purged(format!("transactions {}", gone.join(", "))));
        }
        let end = self.maria_binlog_position(conn).await?;
        if !start.is_at_or_before(&end) {
            return Err(self.ahead(format!("transactions up to {start}, its binlog ends at `{end}`")));
        }
        Ok(())
    }

    /// The state before the oldest binlog file, from the list of GTIDs at its head. A file without the list has nothing before
    /// its own transactions.
    async fn maria_oldest_position(&self, conn: &mut Conn) -> mysql_async::Result<MariaDbGtidPosition> {
        let oldest: Option<mysql_async::Row> = conn.query_first(self.facts.dialect().binlog_files()).await?;
        let Some(file) = oldest.and_then(|row| row.get::<String, _>(0)) else {
            return Ok(MariaDbGtidPosition::default());
        };
        let list = listed_before(conn, &file).await?;
        Ok(list.trim_matches(['[', ']']).parse().unwrap_or_default())
    }

    /// Everything that was committed before a file began, as its head says; nothing where it does not say.
    pub async fn state_before(&self, conn: &mut Conn, file: &str) -> Result<Position, BinlogError> {
        const WHAT: &str = "SHOW BINLOG EVENTS";
        let list = listed_before(conn, file).await.map_err(self.refused(WHAT))?;
        let bad = || BinlogError::BadAnswer { server: self.address.clone(), what: WHAT };
        Ok(match self.flavor {
            Flavor::MySql => {
                let text: String = list.chars().filter(|c| !c.is_whitespace()).collect();
                Position::MySql { executed: text.parse().map_err(|_| bad())? }
            }
            Flavor::MariaDb => Position::MariaDb { gtid: list.trim_matches(['[', ']']).parse().map_err(|_| bad())? },
        })
    }

    async fn check_file(&self, conn: &mut Conn, file: &str, offset: u64) -> Result<(), BinlogError> {
        let files = self.files(conn).await?;
        match files.iter().find(|(name, _)| name == file) {
            Some((_, bytes)) if offset <= *bytes => Ok(()),
            Some((_, bytes)) => Err(self.ahead(format!("offset {offset} of {file}, which has {bytes} bytes"))),
            None => Err(self.purged(match files.first() {
                Some((oldest, _)) => format!("{file} from offset {offset} on, and all up to {oldest}, its oldest file"),
                None => format!("{file} from offset {offset} on"),
            })),
        }
    }

    /// Binlog files with their sizes in bytes, oldest first.
    pub async fn files(&self, conn: &mut Conn) -> Result<Vec<(String, u64)>, BinlogError> {
        let list = self.facts.dialect().binlog_files();
        let rows: Vec<mysql_async::Row> = conn.query(list).await.map_err(self.refused(list))?;
        Ok(rows.iter().filter_map(|row| Some((row.get(0)?, row.get(1)?))).collect())
    }

    async fn executed(&self, conn: &mut Conn) -> Result<GtidSet, BinlogError> {
        self.gtid_set(conn, self.facts.dialect().gtid_executed()).await
    }

    async fn gtid_set(&self, conn: &mut Conn, query: &'static str) -> Result<GtidSet, BinlogError> {
        let text: String = self.first(conn, query).await?.unwrap_or_default();
        // The server breaks long sets into lines.
        let text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        text.parse().map_err(|_| BinlogError::BadAnswer { server: self.address.clone(), what: query })
    }

    async fn maria_binlog_position(&self, conn: &mut Conn) -> Result<MariaDbGtidPosition, BinlogError> {
        let query = self.facts.dialect().gtid_executed();
        let text: String = self.first(conn, query).await?.unwrap_or_default();
        text.parse().map_err(|_| BinlogError::BadAnswer { server: self.address.clone(), what: query })
    }

    /// Draws a server id that neither the source nor a replica registered there has.
    pub async fn free_server_id(&self, conn: &mut Conn) -> Result<u32, BinlogError> {
        let list = self.facts.dialect().binlog_readers();
        let replicas: Result<Vec<mysql_async::Row>, _> = conn.query(list).await;
        let mut taken: Vec<u32> = match replicas {
            Ok(rows) => rows.iter().filter_map(|row| row.get(0)).collect(),
            // Without the privilege to list them, the size of the range must do.
            Err(mysql_async::Error::Server(_)) => Vec::new(),
            Err(source) => return Err(self.refused(list)(source)),
        };
        taken.push(self.facts.server_id);
        let drawn =
            (0..SERVER_ID_ATTEMPTS).map(|_| rand::rng().random_range(SERVER_IDS)).find(|id| !taken.contains(id));
        drawn.ok_or_else(|| BinlogError::NoServerId { server: self.address.clone(), attempts: SERVER_ID_ATTEMPTS })
    }

    async fn first<T: FromRow + Send + 'static>(
        &self,
        conn: &mut Conn,
        query: &'static str,
    ) -> Result<Option<T>, BinlogError> {
        conn.query_first(query).await.map_err(self.refused(query))
    }

    pub fn refused(&self, what: &'static str) -> impl Fn(mysql_async::Error) -> BinlogError + use<> {
        let server = self.address.clone();
        move |source| BinlogError::Query { server: server.clone(), what, source: Box::new(source) }
    }

    fn purged(&self, missing: String) -> BinlogError {
        BinlogError::Purged { server: self.address.clone(), missing }
    }

    fn ahead(&self, missing: String) -> BinlogError {
        BinlogError::PositionAhead { server: self.address.clone(), missing }
    }
}

/// The GTIDs that a binlog file lists at its head: a MySQL set, or a MariaDB list in brackets. Empty where it has no list.
async fn listed_before(conn: &mut Conn, file: &str) -> mysql_async::Result<String> {
    let query = format!("SHOW BINLOG EVENTS IN '{}' LIMIT 5", file.replace('\'', "\'\'"));
    let events: Vec<mysql_async::Row> = conn.query(query).await?;
    let is_list = |event: &&mysql_async::Row| {
        event.get::<String, _>(2).is_some_and(|kind| kind == "Gtid_list" || kind == "Previous_gtids")
    };
    Ok(events.iter().find(is_list).and_then(|event| event.get::<String, _>(5)).unwrap_or_default())
}

/// Where a server's binlog ends, for one who asks again and again: which kind of position the server has is asked once.
#[derive(Debug)]
pub struct BinlogEnd {
    source: Source,
}

impl BinlogEnd {
    /// Holds for this connection, until somebody gives the server GTIDs or takes them from it.
    ///
    /// # Errors
    ///
    /// [`BinlogError::BinlogOff`], or what the server says.
    pub async fn ask(conn: &mut Conn, address: &str) -> Result<BinlogEnd, BinlogError> {
        Ok(BinlogEnd { source: Source::ask(conn, address).await? })
    }

    /// As [`current_position`], by the connection that was asked.
    ///
    /// # Errors
    ///
    /// As [`current_position`].
    pub async fn position(&self, conn: &mut Conn) -> Result<Position, BinlogError> {
        self.source.current_position(conn).await
    }
}

/// Where a server's binlog ends now: a GTID set, a MariaDB GTID position, or file and offset where it has no GTIDs.
pub async fn current_position(conn: &mut Conn, address: &str) -> Result<Position, BinlogError> {
    BinlogEnd::ask(conn, address).await?.position(conn).await
}

/// A position as people and backups write it, in the terms of the server, which can be read from there: a GTID set, MariaDB's
/// GTIDs, or `file:offset` where the server knows what that means to its replicas, too.
///
/// # Errors
///
/// [`BinlogError::NotAPosition`], or those of a server whose binlog does not reach back, or not that far.
pub async fn position_of(conn: &mut Conn, address: &str, text: &str) -> Result<Position, BinlogError> {
    let source = Source::ask(conn, address).await?;
    let wrong =
        |wanted: &'static str| BinlogError::NotAPosition { server: address.to_owned(), text: text.to_owned(), wanted };
    let file = text.rsplit_once(':').and_then(|(file, offset)| Some((file.to_owned(), offset.parse::<u64>().ok()?)));
    let file = file.filter(|(file, _)| file.contains('.') && !file.contains(':'));
    let position = match (source.flavor, file) {
        (Flavor::MariaDb, Some((file, offset))) => {
            let gtid: Option<Option<String>> = conn
                .exec_first("SELECT BINLOG_GTID_POS(?, ?)", (file, offset))
                .await
                .map_err(source.refused("SELECT BINLOG_GTID_POS"))?;
            let gtid = gtid.flatten().and_then(|gtid| gtid.parse().ok());
            Position::MariaDb { gtid: gtid.ok_or_else(|| wrong("a `file:offset` that the server still has"))? }
        }
        (Flavor::MariaDb, None) => {
            Position::MariaDb { gtid: text.parse().map_err(|_| wrong("GTIDs as `0-1-270`, or `file:offset`"))? }
        }
        (Flavor::MySql, None) if source.facts.has_gtids() => Position::MySql {
            executed: text.parse().map_err(|_| wrong("a GTID set, as the backup's `gtid_executed`"))?,
        },
        (Flavor::MySql, Some((file, offset))) if !source.facts.has_gtids() => {
            Position::File { server: source.facts.identity.clone(), file, offset }
        }
        (Flavor::MySql, Some(_)) => return Err(wrong("a GTID set, as the backup's `gtid_executed`")),
        (Flavor::MySql, None) => return Err(wrong("`file:offset`, since its GTIDs are off")),
    };
    source.check_start(conn, &position).await?;
    Ok(position)
}

/// As [`current_position`], always as file and offset with the server's identity.
pub async fn current_file_position(conn: &mut Conn, address: &str) -> Result<Position, BinlogError> {
    Source::ask(conn, address).await?.current_file_position(conn).await
}

/// Whether everything before `target` has been read by one who stands at `read`. False for positions of different kinds.
pub fn is_reached(read: &Position, target: &Position) -> bool {
    match (read, target) {
        (Position::MySql { executed }, Position::MySql { executed: target }) => target.is_subset_of(executed),
        (Position::MariaDb { gtid }, Position::MariaDb { gtid: target }) => target.is_at_or_before(gtid),
        (
            Position::File { server, file, offset },
            Position::File { server: target_server, file: target_file, offset: target_offset },
        ) => server == target_server && (file_number(file), *offset) >= (file_number(target_file), *target_offset),
        _ => false,
    }
}

/// `binlog.000012` is file 12; numbers grow past six digits.
fn file_number(file: &str) -> u64 {
    file.rsplit_once('.').and_then(|(_, digits)| digits.parse().ok()).unwrap_or(0)
}
