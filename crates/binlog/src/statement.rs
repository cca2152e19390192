//! What a logged statement means for the synced tables.
//!
//! A general SQL parser knows less of MySQL's and MariaDB's DDL than the servers log, and what it cannot parse is what matters
//! here. So the heads of the statements that change tables are read directly, their grammar being small and regular, and
//! every statement that is not known for harmless stops the stream when it names a synced table.

use crossfade_model::TableName;

use crate::SyncedTables;
use crate::error::StopReason;
use crate::lexer::{Token, tokens};
use crate::xa::Xid;

/// A statement as a QUERY event carries it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Statement<'a> {
    pub text: &'a str,
    pub default_schema: &'a str,
    pub backslash_escapes: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing to carry. `only_crossfade`: it concerns crossfade's own schema.
    Passes {
        only_crossfade: bool,
    },
    Begin,
    Commit,
    Rollback,
    Savepoint(String),
    RollbackTo(String),
    XaStart,
    XaEnd,
    XaCommit(Xid),
    XaRollback(Xid),
    /// The definition of a synced table may have changed, and its rows have not.
    Redefines(TableName),
    Stops(StopReason),
}

/// Reads statements with the names of the synced tables in mind.
pub(crate) struct Reading<'a> {
    tables: &'a SyncedTables,
    folds_names: bool,
    statement: Statement<'a>,
    tokens: Vec<Token>,
}

/// Classifies a statement. `folds_names`: the server's table names do not depend on case.
pub(crate) fn effect(statement: Statement<'_>, tables: &SyncedTables, folds_names: bool) -> Effect {
    // The statements that frame every transaction are logged in one spelling.
    match statement.text {
        "BEGIN" => return Effect::Begin,
        "COMMIT" => return Effect::Commit,
        _ => {}
    }
    let tokens = tokens(statement.text, statement.backslash_escapes);
    Reading { tables, folds_names, statement, tokens }.effect()
}

impl Reading<'_> {
    fn effect(&self) -> Effect {
        let Some(Token::Word(first)) = self.tokens.first() else {
            return if self.tokens.is_empty() { self.passes() } else { self.unread() };
        };
        match first.to_ascii_uppercase().as_str() {
            "BEGIN" => Effect::Begin,
            "COMMIT" => Effect::Commit,
            "ROLLBACK" => self.rollback(),
            "SAVEPOINT" => self
                .tokens
                .get(1)
                .and_then(Token::as_name)
                .map_or_else(|| self.unread(), |name| Effect::Savepoint(name.to_owned())),
            "XA" => self.xa(),
            "TRUNCATE" => self.truncate(),
            "DROP" => self.drop(),
            "RENAME" => self.rename(),
            "ALTER" => self.alter(),
            "CREATE" => self.create(),
            "INSERT" | "REPLACE" => self.insert(),
            "UPDATE" | "DELETE" | "LOAD" | "WITH" => self.changes(),
            // A function called in a logged SELECT or DO was logged because it changes something, and what it changes is not said.
            "SELECT" | "DO" | "CALL" => Effect::Stops(StopReason::OpaqueStatement),
            "RELEASE" | "GRANT" | "REVOKE" | "ANALYZE" | "OPTIMIZE" | "REPAIR" | "CHECK" | "CHECKSUM" | "FLUSH"
            | "SET" | "INSTALL" | "UNINSTALL" | "LOCK" | "UNLOCK" | "USE" | "CACHE" | "RESET" | "CHANGE" | "START"
            | "STOP" | "KILL" | "PURGE" | "SHUTDOWN" | "RESTART" | "CLONE" | "EXPLAIN" | "DESCRIBE" | "SHOW"
            | "HELP" => self.passes(),
            _ => self.unread(),
        }
    }

    fn passes(&self) -> Effect {
        let names_crossfade = self.tokens.iter().any(|token| token.as_name() == Some("crossfade"));
        Effect::Passes { only_crossfade: names_crossfade || self.statement.default_schema == "crossfade" }
    }

    /// A statement that is not understood: harmless only where it names no synced table.
    fn unread(&self) -> Effect {
        match self.mentioned() {
            Some(table) => Effect::Stops(StopReason::UnreadStatement { table }),
            None => self.passes(),
        }
    }

    fn rollback(&self) -> Effect {
        let at = self.after(1, &["WORK"]);
        if !self.word(at, "TO") {
            return Effect::Rollback;
        }
        let at = self.after(at + 1, &["SAVEPOINT"]);
        match self.tokens.get(at).and_then(Token::as_name) {
            Some(name) => Effect::RollbackTo(name.to_owned()),
            None => self.unread(),
        }
    }

    fn xa(&self) -> Effect {
        let xid = || Xid::parse(self.statement.text);
        match self.tokens.get(1).and_then(Token::as_name).map(str::to_ascii_uppercase).as_deref() {
            Some("START" | "BEGIN") => Effect::XaStart,
            Some("END" | "PREPARE") => Effect::XaEnd,
            Some("COMMIT") => xid().map_or_else(|| Effect::Stops(StopReason::OpaqueStatement), Effect::XaCommit),
            Some("ROLLBACK") => xid().map_or_else(|| Effect::Stops(StopReason::OpaqueStatement), Effect::XaRollback),
            _ => Effect::Stops(StopReason::OpaqueStatement),
        }
    }

    fn truncate(&self) -> Effect {
        let at = self.after(1, &["TABLE"]);
        match self.synced_at(at) {
            Named::Synced(table) => Effect::Stops(StopReason::Truncated { table }),
            Named::Other => self.passes(),
            Named::Nothing => self.unread(),
        }
    }

    fn drop(&self) -> Effect {
        match self.keyword(1).as_str() {
            // Temporary tables hide real ones from their own session only, and their rows are not logged.
            "TEMPORARY" => self.passes(),
            "TABLE" | "TABLES" => {
                let at = self.after(2, &["IF", "EXISTS"]);
                match self.any_synced_in_list(at) {
                    Some(table) => Effect::Stops(StopReason::Dropped { table }),
                    None => self.passes(),
                }
            }
            "DATABASE" | "SCHEMA" => {
                let at = self.after(2, &["IF", "EXISTS"]);
                let schema = self.tokens.get(at).and_then(Token::as_name).unwrap_or_default();
                let hit = self.tables.iter().map(|(name, _)| name).find(|name| self.same(&name.schema, schema));
                match hit {
                    Some(table) => Effect::Stops(StopReason::Dropped { table: table.clone() }),
                    None => self.passes(),
                }
            }
            "INDEX" => self.redefines_after_on(),
            "VIEW" | "TRIGGER" | "PROCEDURE" | "FUNCTION" | "EVENT" | "USER" | "ROLE" | "SERVER" | "PACKAGE"
            | "SEQUENCE" | "TABLESPACE" | "UNDO" | "LOGFILE" | "SPATIAL" | "RESOURCE" | "PREPARE" | "LIBRARY" => {
                self.passes()
            }
            _ => self.unread(),
        }
    }

    fn rename(&self) -> Effect {
        if !matches!(self.keyword(1).as_str(), "TABLE" | "TABLES") {
            return self.passes();
        }
        // Sources and targets alike: an online schema change swaps its own table in as the target of a rename.
        match self.mentioned() {
            Some(table) => Effect::Stops(StopReason::Renamed { table }),
            None => self.passes(),
        }
    }

    fn alter(&self) -> Effect {
        let at = self.after(self.after(1, &["ONLINE"]), &["IGNORE"]);
        if !self.word(at, "TABLE") {
            return self.passes();
        }
        let at = self.after(at + 1, &["IF", "EXISTS"]);
        let subject = self.synced_at(at);
        if let Named::Nothing = subject {
            return self.unread();
        }
        let rest = &self.tokens[at..];
        if let Some(target) = self.rename_target(at) {
            return match (subject, target) {
                (Named::Synced(table), _) | (_, Named::Synced(table)) => Effect::Stops(StopReason::Renamed { table }),
                _ => self.passes(),
            };
        }
        let removes_rows = ["TRUNCATE", "DROP", "EXCHANGE", "DISCARD", "IMPORT", "CONVERT"].iter().any(|verb| {
            rest.windows(2).any(|two| {
                two[0].is_word(verb)
                    && (two[1].is_word("PARTITION") || two[1].is_word("TABLESPACE") || two[1].is_word("TABLE"))
            })
        });
        match subject {
            Named::Synced(table) if removes_rows => Effect::Stops(StopReason::Truncated { table }),
            Named::Synced(table) => Effect::Redefines(table),
            // EXCHANGE PARTITION … WITH TABLE puts other rows into the table that it names last.
            _ if removes_rows => match self.mentioned() {
                Some(table) => Effect::Stops(StopReason::Truncated { table }),
                None => self.passes(),
            },
            _ => self.passes(),
        }
    }

    /// The table's new name, if the ALTER whose subject stands at `at` gives it one.
    fn rename_target(&self, at: usize) -> Option<Named> {
        let mut depth = 0_i32;
        for (i, token) in self.tokens.iter().enumerate().skip(at) {
            match token {
                Token::Sign('(') => depth += 1,
                Token::Sign(')') => depth -= 1,
                _ if depth == 0 && token.is_word("RENAME") => {
                    let next = self.keyword(i + 1);
                    if matches!(next.as_str(), "COLUMN" | "INDEX" | "KEY") {
                        continue;
                    }
                    let name = if matches!(next.as_str(), "TO" | "AS" | "=") { i + 2 } else { i + 1 };
                    return Some(self.synced_at(name));
                }
                _ => {}
            }
        }
        None
    }

    fn create(&self) -> Effect {
        let replaces = self.word(1, "OR");
        let at = self.after(1, &["OR", "REPLACE"]);
        match self.keyword(at).as_str() {
            "TEMPORARY" => self.passes(),
            "TABLE" => self.create_table(at + 1, replaces),
            "UNIQUE" | "FULLTEXT" | "SPATIAL" | "INDEX" | "ONLINE" | "OFFLINE" => self.redefines_after_on(),
            // Bodies of stored programs and views may name anything; they change nothing now.
            _ => self.passes(),
        }
    }

    fn create_table(&self, at: usize, replaces: bool) -> Effect {
        let at = self.after(at, &["IF", "NOT", "EXISTS"]);
        match self.synced_at(at) {
            Named::Synced(table) if replaces => Effect::Stops(StopReason::Dropped { table }),
            Named::Synced(table) if self.tokens.iter().any(|token| token.is_word("SELECT")) => {
                Effect::Stops(StopReason::StatementFormat { table })
            }
            Named::Synced(table) => Effect::Redefines(table),
            Named::Other => self.passes(),
            Named::Nothing => self.unread(),
        }
    }

    /// `CREATE … INDEX … ON table`, `DROP INDEX … ON table`.
    fn redefines_after_on(&self) -> Effect {
        let on = self.tokens.iter().position(|token| token.is_word("ON"));
        match on.map(|on| self.synced_at(on + 1)) {
            Some(Named::Synced(table)) => Effect::Redefines(table),
            Some(Named::Other) => self.passes(),
            _ => self.unread(),
        }
    }

    /// `INSERT … INTO table`, `REPLACE … INTO table`: what they read may be synced, what they write may not.
    fn insert(&self) -> Effect {
        let modifiers = ["LOW_PRIORITY", "DELAYED", "HIGH_PRIORITY", "IGNORE", "INTO"];
        let at = modifiers.iter().fold(1, |at, modifier| self.after(at, &[modifier]));
        match self.synced_at(at) {
            Named::Synced(table) => Effect::Stops(StopReason::StatementFormat { table }),
            Named::Other => self.passes(),
            Named::Nothing => self.changes(),
        }
    }

    fn changes(&self) -> Effect {
        match self.mentioned() {
            Some(table) => Effect::Stops(StopReason::StatementFormat { table }),
            None => self.passes(),
        }
    }

    fn keyword(&self, at: usize) -> String {
        match self.tokens.get(at) {
            Some(Token::Word(word)) => word.to_ascii_uppercase(),
            Some(Token::Sign(sign)) => sign.to_string(),
            _ => String::new(),
        }
    }

    fn word(&self, at: usize, keyword: &str) -> bool {
        self.tokens.get(at).is_some_and(|token| token.is_word(keyword))
    }

    /// The place after `words`, if all stand at `at`; else `at`.
    fn after(&self, at: usize, words: &[&str]) -> usize {
        let all = words.iter().enumerate().all(|(i, word)| self.word(at + i, word));
        if all { at + words.len() } else { at }
    }

    fn same(&self, synced: &str, written: &str) -> bool {
        if self.folds_names { synced.to_lowercase() == written.to_lowercase() } else { synced == written }
    }

    fn find(&self, schema: &str, table: &str) -> Option<&TableName> {
        self.tables.find(schema, table, self.folds_names).map(|(name, _)| name)
    }

    /// The table named at `at`: `table`, or `schema.table`.
    fn synced_at(&self, at: usize) -> Named {
        let Some(first) = self.tokens.get(at).and_then(Token::as_name) else { return Named::Nothing };
        let dotted = self.tokens.get(at + 1).is_some_and(|token| token.is_sign('.'));
        let (schema, table) = match (dotted, self.tokens.get(at + 2).and_then(Token::as_name)) {
            (true, Some(table)) => (first, table),
            (true, None) => return Named::Nothing,
            (false, _) => (self.statement.default_schema, first),
        };
        self.find(schema, table).map_or(Named::Other, |name| Named::Synced(name.clone()))
    }

    fn any_synced_in_list(&self, at: usize) -> Option<TableName> {
        (at..self.tokens.len()).filter(|at| *at == 0 || !self.tokens[at - 1].is_sign('.')).find_map(|at| {
            match self.synced_at(at) {
                Named::Synced(table) => Some(table),
                _ => None,
            }
        })
    }

    /// A synced table whose name stands anywhere in the statement, outside strings.
    fn mentioned(&self) -> Option<TableName> {
        self.any_synced_in_list(0)
    }
}

enum Named {
    Synced(TableName),
    Other,
    /// No name stands there.
    Nothing,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crossfade_model::TableShape;

    use super::*;

    /// `app.users` and ``app.`odd``name` `` are synced.
    fn tables() -> SyncedTables {
        let mut tables = SyncedTables::new();
        for name in ["users", "odd`name"] {
            let shape = TableShape {
                name: TableName::new("app", name),
                columns: Vec::new(),
                primary_key: Vec::new(),
                unique_keys: Vec::new(),
                foreign_keys: Vec::new(),
                engine: "InnoDB".to_owned(),
            };
            tables.insert_whole(Arc::new(shape));
        }
        tables
    }

    fn read_in(schema: &str, text: &str, folds_names: bool) -> Effect {
        let statement = Statement { text, default_schema: schema, backslash_escapes: true };
        effect(statement, &tables(), folds_names)
    }

    /// In words: what becomes of the stream.
    fn outcome(text: &str) -> &'static str {
        match read_in("app", text, false) {
            Effect::Passes { .. } => "passes",
            Effect::Redefines(_) => "redefines",
            Effect::Stops(StopReason::StatementFormat { .. }) => "statement",
            Effect::Stops(StopReason::OpaqueStatement) => "opaque",
            Effect::Stops(StopReason::Truncated { .. }) => "truncated",
            Effect::Stops(StopReason::Dropped { .. }) => "dropped",
            Effect::Stops(StopReason::Renamed { .. }) => "renamed",
            Effect::Stops(StopReason::UnreadStatement { .. }) => "unread",
            Effect::Stops(_) => "stops",
            Effect::Begin | Effect::Commit | Effect::Rollback => "frame",
            Effect::Savepoint(_) | Effect::RollbackTo(_) => "savepoint",
            Effect::XaStart | Effect::XaEnd | Effect::XaCommit(_) | Effect::XaRollback(_) => "xa",
        }
    }

    #[test]
    fn statements_mean_what_the_server_does() {
        let cases = [
            ("BEGIN", "frame"),
            ("COMMIT", "frame"),
            ("ROLLBACK", "frame"),
            ("SAVEPOINT `a b`", "savepoint"),
            ("ROLLBACK TO `a b`", "savepoint"),
            ("RELEASE SAVEPOINT a", "passes"),
            ("XA START X'61',X'',1", "xa"),
            ("XA COMMIT X'61',X'',1", "xa"),
            ("XA COMMIT", "opaque"),
            ("", "passes"),
            ("# Dummy event replacing something", "passes"),
            ("INSERT INTO users VALUES (1)", "statement"),
            ("insert low_priority ignore app . `users` values (1)", "statement"),
            ("REPLACE users VALUES (1)", "statement"),
            ("INSERT INTO log SELECT * FROM users", "passes"),
            ("UPDATE log JOIN users USING (id) SET users.a = 1", "statement"),
            ("UPDATE other.users SET a = 1", "passes"),
            ("UPDATE log SET a = 'users'", "passes"),
            ("DELETE users FROM log JOIN users USING (id)", "statement"),
            ("WITH x AS (SELECT 1) DELETE FROM users", "statement"),
            ("LOAD DATA INFILE 'x' INTO TABLE `users`", "statement"),
            ("SELECT `app`.`changes_things`()", "opaque"),
            ("TRUNCATE users", "truncated"),
            ("TRUNCATE TABLE other.users", "passes"),
            ("DROP TABLE IF EXISTS `a`,`users` /* generated by server */", "dropped"),
            ("DROP TEMPORARY TABLE IF EXISTS `users`", "passes"),
            ("DROP /*!40005 TEMPORARY */ TABLE IF EXISTS `users`", "passes"),
            ("DROP TABLE users2", "passes"),
            ("DROP TABLE `odd``name`", "dropped"),
            ("DROP DATABASE app", "dropped"),
            ("DROP SCHEMA IF EXISTS app2", "passes"),
            ("DROP INDEX u ON users", "redefines"),
            ("DROP VIEW users", "passes"),
            ("DROP WHATEVER users", "unread"),
            ("RENAME TABLE a TO b, users TO c", "renamed"),
            ("RENAME TABLE users TO _users_old, _users_new TO users", "renamed"),
            ("RENAME TABLE _x TO app.users", "renamed"),
            ("RENAME USER users TO people", "passes"),
            ("ALTER TABLE users ADD COLUMN a INT", "redefines"),
            ("ALTER ONLINE IGNORE TABLE users ADD COLUMN a INT", "redefines"),
            ("ALTER TABLE users RENAME COLUMN a TO b, RENAME INDEX x TO y", "redefines"),
            ("ALTER TABLE users ADD COLUMN a INT, RENAME people", "renamed"),
            ("ALTER TABLE people RENAME TO users", "renamed"),
            ("ALTER TABLE people RENAME AS other.users", "passes"),
            ("ALTER TABLE users ADD COLUMN a INT DEFAULT (RENAME(1))", "redefines"),
            ("ALTER TABLE users DROP PARTITION p1", "truncated"),
            ("ALTER TABLE users DISCARD TABLESPACE", "truncated"),
            ("ALTER TABLE parts EXCHANGE PARTITION p1 WITH TABLE users", "truncated"),
            ("ALTER TABLE parts DROP PARTITION p1", "passes"),
            ("ALTER TABLE users DROP COLUMN a, ENGINE=InnoDB", "redefines"),
            ("ALTER USER users IDENTIFIED BY 'x'", "passes"),
            ("CREATE TABLE IF NOT EXISTS users (a INT)", "redefines"),
            ("CREATE OR REPLACE TABLE users (a INT)", "dropped"),
            ("CREATE TABLE users SELECT 1 AS a", "statement"),
            ("CREATE TEMPORARY TABLE users (a INT)", "passes"),
            ("CREATE TABLE people LIKE users", "passes"),
            ("CREATE UNIQUE INDEX u ON users (a)", "redefines"),
            ("CREATE DEFINER=`a`@`b` TRIGGER t BEFORE INSERT ON users FOR EACH ROW DELETE FROM users", "passes"),
            ("CREATE VIEW v AS SELECT * FROM users", "passes"),
            ("GRANT SELECT ON users TO x", "passes"),
            ("OPTIMIZE TABLE users", "passes"),
            ("FROBNICATE users", "unread"),
            ("FROBNICATE people", "passes"),
            ("`users`", "unread"),
        ];
        let wrong: Vec<_> =
            cases.iter().map(|(text, expected)| (text, expected, outcome(text))).filter(|(_, a, b)| *a != b).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn schema_and_case_decide() {
        let stopped = |schema, text, folds| matches!(read_in(schema, text, folds), Effect::Stops(_));
        assert!(!stopped("other", "TRUNCATE users", false));
        assert!(stopped("other", "TRUNCATE app.users", false));
        assert!(!stopped("app", "TRUNCATE Users", false));
        assert!(stopped("App", "TRUNCATE Users", true));
        let own = |schema, text| read_in(schema, text, false) == Effect::Passes { only_crossfade: true };
        assert!(own("crossfade", "ALTER TABLE message_block DROP PARTITION p1"));
        assert!(own("", "CREATE TABLE crossfade.checkpoint (a INT)"));
        assert!(!own("app", "CREATE TABLE log (a INT)"));
    }

    #[test]
    fn a_backslash_hides_nothing_where_it_escapes_nothing() {
        let text = "DELETE FROM log WHERE a = 'x\\' AND EXISTS (SELECT 1 FROM users)";
        let statement = Statement { text, default_schema: "app", backslash_escapes: false };
        assert!(matches!(effect(statement, &tables(), false), Effect::Stops(_)));
    }

    proptest::proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "(ALTER|DROP|CREATE|RENAME|XA|INSERT|ROLLBACK TO|SAVEPOINT) ?(TABLE)? ?[a-z`'.,() X]{0,40}") {
            read_in("app", &text, false);
        }
    }
}
