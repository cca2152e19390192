//! Replication between private servers, by the servers' own means.

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Row};

use crate::{Error, Flavor, Server};

/// How long a replica may take until it has what its source has, seconds.
const FOLLOW_LIMIT_S: u32 = 60;

/// Where a replica begins to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begin {
    /// After the transactions that the replica has, by their GTIDs.
    Gtids,
    File {
        file: String,
        offset: u64,
    },
}

/// The statement that makes a server a replica of the one that listens on a port of this machine. It does not begin to read.
pub fn change_source(flavor: Flavor, port: u16, begin: &Begin) -> String {
    let place = match (flavor, begin) {
        (Flavor::MySql, Begin::Gtids) => "SOURCE_AUTO_POSITION = 1".to_owned(),
        (Flavor::MySql, Begin::File { file, offset }) => {
            format!("SOURCE_AUTO_POSITION = 0, SOURCE_LOG_FILE = '{file}', SOURCE_LOG_POS = {offset}")
        }
        (Flavor::MariaDb, Begin::Gtids) => "MASTER_USE_GTID = slave_pos".to_owned(),
        (Flavor::MariaDb, Begin::File { file, offset }) => {
            format!("MASTER_USE_GTID = no, MASTER_LOG_FILE = '{file}', MASTER_LOG_POS = {offset}")
        }
    };
    match flavor {
        // A lost link is made again at once, not after a minute.
        Flavor::MySql => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'root', \
             SOURCE_PASSWORD = '', GET_SOURCE_PUBLIC_KEY = 1, SOURCE_CONNECT_RETRY = 1, SOURCE_RETRY_COUNT = 86400, {place}"
        ),
        Flavor::MariaDb => format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'root', \
             MASTER_PASSWORD = '', MASTER_CONNECT_RETRY = 1, {place}"
        ),
    }
}

impl Server {
    /// Makes this server a replica of `source`, which has the same data, from where that stands now. What this server had in
    /// its own binlog is gone.
    pub async fn follow(&self, source: &Server) -> Result<(), Error> {
        let mut conn = source.connect().await?;
        let (executed, begin) = source.end_of_binlog(&mut conn).await?;
        let mut statements = vec![self.word("RESET BINARY LOGS AND GTIDS", "RESET MASTER").to_owned()];
        if let Some(executed) = executed {
            let variable = self.word("gtid_purged", "gtid_slave_pos");
            statements.push(format!("SET GLOBAL {variable} = '{executed}'"));
        }
        statements.push(change_source(self.flavor(), source.port(), &begin));
        statements.push(self.word("START REPLICA", "START SLAVE").to_owned());
        self.run(&statements).await
    }

    /// Reads from `source` from now on, after the transactions that this server has.
    pub async fn follow_on(&self, source: &Server) -> Result<(), Error> {
        let change = change_source(self.flavor(), source.port(), &Begin::Gtids);
        self.run(&[self.stop_replica(), change, self.word("START REPLICA", "START SLAVE").to_owned()]).await
    }

    /// Waits until this server has everything that `source` has now.
    pub async fn until_followed(&self, source: &Server) -> Result<(), Error> {
        let mut conn = source.connect().await?;
        let wait = match source.end_of_binlog(&mut conn).await? {
            (Some(executed), _) => {
                let function = self.word("WAIT_FOR_EXECUTED_GTID_SET", "MASTER_GTID_WAIT");
                format!("SELECT {function}('{executed}', {FOLLOW_LIMIT_S})")
            }
            (None, Begin::File { file, offset }) => {
                let function = self.word("SOURCE_POS_WAIT", "MASTER_POS_WAIT");
                format!("SELECT {function}('{file}', {offset}, {FOLLOW_LIMIT_S})")
            }
            (None, Begin::Gtids) => return Ok(()),
        };
        let mut conn = self.connect().await?;
        let result: Option<Option<i64>> = ask(&mut conn, &wait).await?;
        match result.flatten() {
            Some(answer) if answer >= 0 && (answer == 0 || wait.contains("POS_WAIT")) => Ok(()),
            _ => Err(Error::NotFollowing { flavor: self.flavor(), limit_s: FOLLOW_LIMIT_S }),
        }
    }

    /// Makes a replica a server of its own, which may be written to. What it has fetched and not yet replayed is replayed before.
    pub async fn promote(&self) -> Result<(), Error> {
        self.run(&[self.word("STOP REPLICA IO_THREAD", "STOP SLAVE IO_THREAD").to_owned()]).await?;
        self.until_replayed().await?;
        let forget = self.word("RESET REPLICA ALL", "RESET SLAVE ALL").to_owned();
        self.run(&[self.stop_replica(), forget, "SET GLOBAL read_only = OFF".to_owned()]).await
    }

    async fn until_replayed(&self) -> Result<(), Error> {
        let mut conn = self.connect().await?;
        let begun = std::time::Instant::now();
        loop {
            let row: Option<Row> = ask(&mut conn, self.word("SHOW REPLICA STATUS", "SHOW SLAVE STATUS")).await?;
            let Some(row) = row else { return Ok(()) };
            let text = |mysql, mariadb| row.get_opt::<String, _>(self.word(mysql, mariadb))?.ok();
            let offset = |mysql, mariadb| row.get_opt::<u64, _>(self.word(mysql, mariadb))?.ok();
            let fetched =
                (text("Source_Log_File", "Master_Log_File"), offset("Read_Source_Log_Pos", "Read_Master_Log_Pos"));
            let replayed = (
                text("Relay_Source_Log_File", "Relay_Master_Log_File"),
                offset("Exec_Source_Log_Pos", "Exec_Master_Log_Pos"),
            );
            if fetched == replayed {
                return Ok(());
            }
            if begun.elapsed().as_secs() > u64::from(FOLLOW_LIMIT_S) {
                return Err(Error::NotFollowing { flavor: self.flavor(), limit_s: FOLLOW_LIMIT_S });
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    }

    /// What has been committed as GTIDs, if the server has them, and where a replica would go on.
    async fn end_of_binlog(&self, conn: &mut Conn) -> Result<(Option<String>, Begin), Error> {
        let mode: Option<String> = match self.flavor() {
            Flavor::MySql => ask(conn, "SELECT @@GLOBAL.gtid_mode").await?,
            Flavor::MariaDb => None,
        };
        if mode.is_none_or(|mode| mode == "ON") {
            let question = self.word("SELECT @@GLOBAL.gtid_executed", "SELECT @@GLOBAL.gtid_binlog_pos");
            let executed: Option<String> = ask(conn, question).await?;
            return Ok((executed.map(|text| text.replace('\n', "")), Begin::Gtids));
        }
        let row: Option<Row> = ask(conn, "SHOW BINARY LOG STATUS").await?;
        let place = row.and_then(|row| Some((row.get::<String, _>(0)?, row.get::<u64, _>(1)?)));
        let (file, offset) = place.unwrap_or_default();
        Ok((None, Begin::File { file, offset }))
    }

    fn stop_replica(&self) -> String {
        self.word("STOP REPLICA", "STOP SLAVE").to_owned()
    }

    fn word(&self, mysql: &'static str, mariadb: &'static str) -> &'static str {
        match self.flavor() {
            Flavor::MySql => mysql,
            Flavor::MariaDb => mariadb,
        }
    }

    async fn run(&self, statements: &[String]) -> Result<(), Error> {
        let mut conn = self.connect().await?;
        for statement in statements {
            let refused = |source| Error::Database { what: statement.clone(), source };
            conn.query_drop(statement).await.map_err(refused)?;
        }
        Ok(())
    }
}

async fn ask<T: FromRow + Send + 'static>(conn: &mut Conn, question: &str) -> Result<Option<T>, Error> {
    conn.query_first(question).await.map_err(|source| Error::Database { what: question.to_owned(), source })
}
