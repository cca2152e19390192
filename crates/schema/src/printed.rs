//! The statement that creates a table, taken apart: columns, keys, checks, options, partitions.

use std::collections::BTreeMap;

use crate::token::{Token, TokenKind, depth_after, plain, tokens};

/// A printed `CREATE TABLE`.
#[derive(Debug)]
pub(crate) struct PrintedTable<'t> {
    /// What stands between the outermost brackets, in its order.
    pub items: Vec<Item<'t>>,
    /// What follows the bracket: options.
    pub options: Vec<Token<'t>>,
    /// `PARTITION BY …`, with the hints around it.
    pub partitions: Vec<Token<'t>>,
}

#[derive(Debug)]
pub(crate) struct Item<'t> {
    pub kind: ItemKind,
    /// Without back-quotes; `PRIMARY` for the primary key.
    pub name: String,
    /// All of it, its name included.
    pub tokens: Vec<Token<'t>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ItemKind {
    Column,
    Key,
    ForeignKey,
    Check,
    /// A period of MariaDB, and whatever else a server may print.
    Other,
}

impl<'t> PrintedTable<'t> {
    /// `None` for what is no such statement.
    pub fn parse(statement: &'t str) -> Option<PrintedTable<'t>> {
        let all = tokens(statement);
        let open = all.iter().position(|token| token.is_sign("("))?;
        let mut items = Vec::new();
        let mut item: Vec<Token<'t>> = Vec::new();
        let mut depth = 1;
        let mut end = None;
        for (at, token) in all.iter().enumerate().skip(open + 1) {
            depth = depth_after(depth, token);
            if depth == 0 {
                end = Some(at);
                break;
            }
            if depth == 1 && token.is_sign(",") {
                items.push(Item::of(std::mem::take(&mut item))?);
            } else {
                item.push(*token);
            }
        }
        items.push(Item::of(item)?);
        let rest = &all[end? + 1..];
        let by = rest.windows(2).position(|two| two[0].is_word("PARTITION") && two[1].is_word("BY"));
        let by = by.unwrap_or(rest.len());
        // The hint that opens before the words belongs to them.
        let from = if by > 0 && rest.get(by).is_some() && rest[by - 1].kind == TokenKind::Hint { by - 1 } else { by };
        Some(PrintedTable { items, options: rest[..from].to_vec(), partitions: rest[from..].to_vec() })
    }

    /// Options by their names in lower case: `engine`, `default charset`. What has no value is its own.
    pub fn option_values(&self) -> BTreeMap<String, String> {
        let mut values = BTreeMap::new();
        let mut words: Vec<String> = Vec::new();
        let meant: Vec<&Token> = self.options.iter().filter(|token| token.kind != TokenKind::Hint).collect();
        let mut at = 0;
        while let Some(token) = meant.get(at) {
            if token.is_sign("=") {
                let value = meant.get(at + 1).map_or("", |token| token.text);
                values.insert(words.join(" "), value.to_owned());
                words.clear();
                at += 2;
                continue;
            }
            words.push(token.name().unwrap_or_else(|| token.text.to_owned()).to_lowercase());
            at += 1;
        }
        if !words.is_empty() {
            values.insert(words.join(" "), String::new());
        }
        values
    }

    pub fn column(&self, name: &str) -> Option<&Item<'t>> {
        self.items.iter().find(|item| item.kind == ItemKind::Column && item.name.eq_ignore_ascii_case(name))
    }
}

impl<'t> Item<'t> {
    fn of(tokens: Vec<Token<'t>>) -> Option<Item<'t>> {
        let meant: Vec<&Token> = tokens.iter().filter(|token| token.kind != TokenKind::Hint).collect();
        let first = meant.first()?;
        let name_at = |at: usize| meant.get(at).and_then(|token| token.name()).unwrap_or_default();
        let key_at = meant.iter().position(|token| token.is_word("KEY"));
        let (kind, name) = match key_at {
            _ if first.kind == TokenKind::Name => (ItemKind::Column, name_at(0)),
            _ if first.is_word("CONSTRAINT") && meant.get(2).is_some_and(|token| token.is_word("FOREIGN")) => {
                (ItemKind::ForeignKey, name_at(1))
            }
            _ if first.is_word("CONSTRAINT") && meant.get(2).is_some_and(|token| token.is_word("CHECK")) => {
                (ItemKind::Check, name_at(1))
            }
            Some(_) if first.is_word("PRIMARY") => (ItemKind::Key, "PRIMARY".to_owned()),
            Some(at) if at <= 1 => (ItemKind::Key, name_at(at + 1)),
            _ => (ItemKind::Other, plain(&tokens)),
        };
        Some(Item { kind, name, tokens })
    }

    /// How many pieces there are up to the name of a key or a check, which is no column's; 0 for a column.
    pub fn own_name_end(&self) -> usize {
        match self.kind {
            ItemKind::Key | ItemKind::Check if self.name != "PRIMARY" => {
                self.tokens.iter().position(|token| token.kind == TokenKind::Name).map_or(0, |at| at + 1)
            }
            _ => 0,
        }
    }

    /// What a column's definition says, clause by clause, under the names that people are told. Type, nullability, character
    /// set and collation are left out: the server's catalog says them in full.
    pub fn clauses(&self) -> BTreeMap<&'static str, Vec<Token<'t>>> {
        let meant = self.tokens.iter().filter(|token| token.kind != TokenKind::Hint);
        let meant: Vec<Token<'t>> = meant.skip(1).copied().collect();
        let mut clauses: BTreeMap<&'static str, Vec<Token<'t>>> = BTreeMap::new();
        let (mut clause, mut depth) = ("", 0);
        let mut at = 0;
        while let Some(token) = meant.get(at) {
            if depth == 0
                && let Some((name, words)) = clause_at(&meant[at..])
            {
                clause = name;
                let taken = clauses.entry(clause).or_default();
                at += words;
                // What follows DEFAULT belongs to it, also NULL.
                if let Some(first) = meant.get(at).filter(|_| matches!(clause, "default" | "comment")) {
                    taken.push(*first);
                    depth = depth_after(depth, first);
                    at += 1;
                }
                continue;
            }
            clauses.entry(clause).or_default().push(*token);
            depth = depth_after(depth, token);
            at += 1;
        }
        for told_elsewhere in ["", "null", "character set", "collation"] {
            clauses.remove(told_elsewhere);
        }
        clauses
    }
}

/// The clause of a column's definition that begins here, and how many words announce it.
fn clause_at(tokens: &[Token<'_>]) -> Option<(&'static str, usize)> {
    let word = |at: usize, word: &str| tokens.get(at).is_some_and(|token| token.is_word(word));
    let heads: [(&str, &str, &'static str); 16] = [
        ("NOT", "NULL", "null"),
        ("NULL", "", "null"),
        ("DEFAULT", "", "default"),
        ("ON", "UPDATE", "on update"),
        ("GENERATED", "ALWAYS", "generated"),
        ("AUTO_INCREMENT", "", "auto increment"),
        ("COMMENT", "", "comment"),
        ("CHARACTER", "SET", "character set"),
        ("COLLATE", "", "collation"),
        ("INVISIBLE", "", "invisible"),
        ("CHECK", "", "check"),
        ("SRID", "", "SRID"),
        ("WITHOUT", "SYSTEM", "without versioning"),
        ("COLUMN_FORMAT", "", "column format"),
        ("STORAGE", "", "storage"),
        ("REF_SYSTEM_ID", "", "SRID"),
    ];
    let found =
        heads.into_iter().find(|(first, second, _)| word(0, first) && (second.is_empty() || word(1, second)))?;
    Some((found.2, if found.1.is_empty() { 1 } else { 2 }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MYSQL: &str = "CREATE TABLE `t` (\n  `id` int NOT NULL AUTO_INCREMENT,\n  `a,(` varchar(10) CHARACTER SET latin1 \
        COLLATE latin1_bin DEFAULT 'it''s, NOT NULL' COMMENT 'a, (b',\n  `g` int GENERATED ALWAYS AS ((`id` + 1)) VIRTUAL \
        NOT NULL,\n  `z` int DEFAULT (1 + 2) /*!80023 INVISIBLE */,\n  `u` timestamp(6) NULL DEFAULT CURRENT_TIMESTAMP(6) ON \
        UPDATE CURRENT_TIMESTAMP(6),\n  PRIMARY KEY (`id`),\n  UNIQUE KEY `u k` (`a,(`),\n  KEY `k` (`z`,(lower(`a,(`))) \
        USING BTREE,\n  CONSTRAINT `f` FOREIGN KEY (`z`) REFERENCES `p` (`id`) ON DELETE CASCADE,\n  CONSTRAINT `c` CHECK \
        ((`z` > 0)) /*!80016 NOT ENFORCED */\n) ENGINE=InnoDB AUTO_INCREMENT=7 DEFAULT CHARSET=utf8mb4 \
        COLLATE=utf8mb4_0900_ai_ci COMMENT='PARTITION BY x'\n/*!50100 PARTITION BY HASH (`id`)\nPARTITIONS 4 */";

    #[test]
    fn a_statement_is_taken_apart() {
        let table = PrintedTable::parse(MYSQL).expect("a statement");
        let kinds: Vec<(ItemKind, &str)> = table.items.iter().map(|item| (item.kind, item.name.as_str())).collect();
        use ItemKind::{Check, Column, ForeignKey, Key};
        assert_eq!(
            kinds,
            [
                (Column, "id"),
                (Column, "a,("),
                (Column, "g"),
                (Column, "z"),
                (Column, "u"),
                (Key, "PRIMARY"),
                (Key, "u k"),
                (Key, "k"),
                (ForeignKey, "f"),
                (Check, "c")
            ]
        );
        let options = table.option_values();
        assert_eq!(options["engine"], "InnoDB");
        assert_eq!(options["comment"], "'PARTITION BY x'");
        assert_eq!(plain(&table.partitions), "PARTITION BY HASH (`id`) PARTITIONS 4");
        let clauses = |name: &str| -> Vec<(&str, String)> {
            let clauses = table.column(name).expect("the column").clauses();
            clauses.into_iter().map(|(clause, tokens)| (clause, plain(&tokens))).collect()
        };
        assert_eq!(clauses("id"), [("auto increment", String::new())]);
        assert_eq!(clauses("a,("), [("comment", "'a, (b'".into()), ("default", "'it''s, NOT NULL'".into())]);
        assert_eq!(clauses("g"), [("generated", "AS ((`id` + 1)) VIRTUAL".into())]);
        assert_eq!(clauses("z"), [("default", "(1 + 2)".into()), ("invisible", String::new())]);
        let now = "CURRENT_TIMESTAMP(6)".to_owned();
        assert_eq!(clauses("u"), [("default", now.clone()), ("on update", now)]);
    }

    #[test]
    fn what_is_no_statement_is_refused() {
        for text in ["", "CREATE TABLE `t`", "CREATE TABLE `t` (\n `a` int", "CREATE TABLE `t` ()"] {
            assert!(PrintedTable::parse(text).is_none(), "{text}");
        }
    }
}
