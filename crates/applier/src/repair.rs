//! Rows that a comparison found different are made equal: row by row, in tagged transactions, and never over a change that users
//! made meanwhile.
//!
//! The caller holds the locks of the row on both sides and has seen that both are what they were when they were compared. Here
//! is found out what users of the target did to the row since then, judged as for any other change, and the row is written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crossfade_catalog::{Purpose, Servers};
use crossfade_model::{Clock, LaneProgress, Row, Seen, StreamProgress, TableLayout, TableName, Value};
use crossfade_rules::mapping::{ChildLink, child_links};
use crossfade_rules::{Remedy, TableMapping, Verdict};
use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::checkpoint::tag_repair;
use crate::error::{ApplyError, row_remedy};
use crate::hold::beat;
use crate::lookup::{Claim, Lookup, Subject};
use crate::opposite_stream;
use crate::outlook::Outlook;
use crate::refusal::Refusal;
use crate::session;
use crate::table::{PacketLimit, TargetTable};
use crate::target::target_tables;

/// The row stays locked meanwhile.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
const POLL_EVERY: Duration = Duration::from_millis(10);

/// Mends rows of one side, the target of its stream.
pub struct Repairer {
    outlook: Outlook,
    pair: String,
    target: Servers,
    tables: Vec<TargetTable>,
    children: Vec<Vec<ChildLink>>,
    lookup: Lookup,
    seen: Seen,
    heart: Option<Conn>,
}

/// What is to become of a row of the target, which is locked.
#[derive(Debug, Clone)]
pub enum RowRepair {
    /// It is not there. The whole row, in the order of the mapping's columns.
    Insert(Row),
    /// These columns are to have other values.
    Change {
        key: Vec<Value>,
        values: BTreeMap<usize, Value>,
    },
    Delete(Row),
}

/// Why a row was not written.
#[derive(Debug)]
pub enum NotWritten {
    /// Try the row again: other transactions were in the way.
    InTheWay,
    /// The target does not take it; why, without values.
    Refused(String),
    Error(ApplyError),
}

impl Repairer {
    /// What the opposite stream captures after message `through` counts as done meanwhile.
    pub fn new(outlook: Outlook, pair: &str, target: Servers, through: u64) -> Repairer {
        let tables =
            target_tables(&outlook.mappings, &outlook.target_shapes, outlook.target_flavor, &PacketLimit::new());
        let lane = LaneProgress { seq: through, batch_first: through, batch_last: through, lanes: 1 };
        let progress = StreamProgress { lanes: BTreeMap::from([(0, lane)]), ..StreamProgress::default() };
        let opposite = opposite_stream(&outlook.stream);
        let seen = Seen { streams: BTreeMap::from([(opposite.as_str().to_owned(), progress)]) };
        let mut lookup = outlook.lookup();
        lookup.advance_floor(std::iter::once(&seen));
        let children = child_links(&outlook.mappings);
        Repairer { pair: pair.to_owned(), target, tables, children, lookup, seen, heart: None, outlook }
    }

    /// A connection to either side that reads and locks rows, or writes them.
    pub async fn connect(servers: &Servers) -> Result<Conn, ApplyError> {
        let mut conn = servers.connect(Purpose::Apply).await?;
        session::prepare(&mut conn).await?;
        Ok(conn)
    }

    /// Begins a transaction in which a row that is looked for and not there keeps its place free.
    pub async fn begin(conn: &mut Conn) -> Result<(), ApplyError> {
        conn.query_drop(session::LOCKING_GAPS).await?;
        Ok(conn.query_drop("BEGIN").await?)
    }

    /// The mapping of a table, by the old side's name, and its number.
    pub fn mapping(&self, identity: &TableName) -> Option<(usize, &TableMapping)> {
        self.outlook.mappings.iter().enumerate().find(|(_, mapping)| mapping.identity == *identity)
    }

    /// A row of the source in the order of the mapping's columns.
    pub fn carried(mapping: &TableMapping, (layout, row): &(TableLayout, Row)) -> Option<Row> {
        mapping.columns.iter().map(|column| row.get(layout.column(&column.source)?).cloned()).collect()
    }

    /// Learns what users of the target have done up to now. `false`: its reader did not get there in time, so nobody can tell.
    ///
    /// The rows that are judged by it are locked before.
    pub async fn learn(&mut self) -> Result<bool, ApplyError> {
        if !self.outlook.opposite_declared {
            return Ok(true);
        }
        let is_known = self.captured_up_to_now().await?;
        if is_known {
            self.lookup.refresh().await?;
        }
        Ok(is_known)
    }

    /// Whether a locked row may be written with a version of this clock: users of the target have done nothing to it that wins
    /// over that, as far as was [learnt](Repairer::learn).
    pub async fn permits(
        &mut self,
        table: usize,
        key: &[&Value],
        effective: Option<Clock>,
        conn: &mut Conn,
    ) -> Result<bool, ApplyError> {
        if !self.outlook.opposite_declared {
            return Ok(true);
        }
        let subject = Subject { mapping: &self.outlook.mappings[table], key, seen: &self.seen };
        let claim = Claim { effective, returned: false, standing: None };
        let verdict = self.lookup.judge(&subject, claim, &self.tables[table], conn).await?;
        Ok(matches!(verdict, Verdict::Write(_)))
    }

    async fn captured_up_to_now(&mut self) -> Result<bool, ApplyError> {
        let writer = format!("repair:{}", self.outlook.stream);
        let heart = match &mut self.heart {
            Some(heart) => heart,
            none => none.insert(Repairer::connect(&self.target).await?),
        };
        let counter = beat(heart, &self.pair, &writer).await?;
        let opposite = opposite_stream(&self.outlook.stream);
        let begun = Instant::now();
        while self.outlook.store.heartbeat_passed(&opposite, &writer).await? < counter {
            if begun.elapsed() >= LONGEST_WAIT {
                return Ok(false);
            }
            tokio::time::sleep(POLL_EVERY).await;
        }
        Ok(true)
    }

    /// Writes a row inside the open transaction, which was [tagged](Repairer::tag) before. What the target refuses leaves nothing
    /// behind.
    pub async fn write(&self, conn: &mut Conn, table: usize, repair: &RowRepair) -> Result<(), NotWritten> {
        conn.query_drop("SAVEPOINT repair").await?;
        let written = self.write_row(conn, table, repair).await;
        if matches!(written, Err(NotWritten::Refused(_))) {
            conn.query_drop("ROLLBACK TO SAVEPOINT repair").await?;
        }
        written
    }

    async fn write_row(&self, conn: &mut Conn, table: usize, repair: &RowRepair) -> Result<(), NotWritten> {
        let target = &self.tables[table];
        match repair {
            RowRepair::Insert(row) => target.insert(conn, &[row]).await?,
            RowRepair::Change { key, values } => target.change(conn, &Vec::from_iter(key), values).await?,
            RowRepair::Delete(row) => {
                for link in &self.children[table] {
                    let referred: Vec<&Value> = link.referred.iter().map(|column| &row[*column]).collect();
                    let child = &self.tables[link.child];
                    if !child.lock_where(conn, &link.columns, &[referred]).await?.is_empty() {
                        let child = &self.outlook.mappings[link.child].target;
                        return Err(NotWritten::Refused(format!("rows of {child} refer to it")));
                    }
                }
                target.delete(conn, &[target.key_of(row)]).await?;
            }
        }
        Ok(())
    }

    /// Writes the repair's own row of the checkpoint: the first change of every transaction of a repair. It is no lane's, and says
    /// nothing of what was applied.
    pub async fn tag(&self, conn: &mut Conn) -> Result<(), NotWritten> {
        Ok(tag_repair(conn, &self.pair, &self.outlook.stream).await?)
    }
}

impl From<mysql_async::Error> for NotWritten {
    fn from(error: mysql_async::Error) -> NotWritten {
        match row_remedy(&error) {
            Remedy::RetryAtOnce => NotWritten::InTheWay,
            Remedy::Park => NotWritten::Refused(Refusal::from(error).to_string()),
            _ => NotWritten::Error(error.into()),
        }
    }
}
