//! What an account may do, from `SHOW GRANTS`.

use std::collections::BTreeSet;

/// An account's privileges, those of its active roles included.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    entries: Vec<Entry>,
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    /// A partial REVOKE of MySQL.
    revoked: bool,
    privileges: BTreeSet<String>,
    scope: Scope,
}

#[derive(Debug, PartialEq, Eq)]
enum Scope {
    Everything,
    /// The name may hold the wildcards `%` and `_`, escaped by a backslash.
    Schema(String),
    Table(String, String),
}

impl Grants {
    /// Lines that are not understood grant nothing.
    pub(super) fn parse<'l>(lines: impl IntoIterator<Item = &'l str>) -> Grants {
        Grants { entries: lines.into_iter().filter_map(parse_line).collect() }
    }

    /// Whether a privilege holds on every schema.
    pub(crate) fn has_global(&self, privilege: &str) -> bool {
        self.entries.iter().any(|entry| !entry.revoked && entry.scope == Scope::Everything && entry.gives(privilege))
    }

    /// Whether a privilege holds on a whole schema.
    pub(crate) fn has_on_schema(&self, privilege: &str, schema: &str) -> bool {
        let on_schema = |entry: &&Entry| match &entry.scope {
            Scope::Schema(pattern) => like(pattern, schema) || pattern == schema,
            _ => false,
        };
        let gives = |entry: &Entry| entry.gives(privilege);
        let mut schema_entries = self.entries.iter().filter(on_schema).filter(|entry| gives(entry));
        let revoked = schema_entries.clone().any(|entry| entry.revoked);
        (self.has_global(privilege) && !revoked) || schema_entries.any(|entry| !entry.revoked)
    }

    pub(crate) fn has_on_table(&self, privilege: &str, schema: &str, table: &str) -> bool {
        let on_table = |entry: &Entry| matches!(&entry.scope, Scope::Table(s, t) if s == schema && t == table);
        self.has_on_schema(privilege, schema)
            || self.entries.iter().any(|entry| !entry.revoked && on_table(entry) && entry.gives(privilege))
    }
}

impl Entry {
    fn gives(&self, privilege: &str) -> bool {
        // MariaDB's new name for the same thing.
        let same = |granted: &String| {
            granted == privilege || (granted == "REPLICATION CLIENT" && privilege == "BINLOG MONITOR")
        };
        self.privileges.iter().any(|granted| granted == "ALL PRIVILEGES" || granted == "ALL" || same(granted))
    }
}

/// ``GRANT SELECT, INSERT (`a`) ON `app`.* TO `sync`@`%` ``. What names no object is a role.
fn parse_line(line: &str) -> Option<Entry> {
    let (revoked, rest) = match line.strip_prefix("GRANT ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("REVOKE ")?),
    };
    let (privileges, rest) = split_outside_quotes(rest, " ON ")?;
    let (object, _) = split_outside_quotes(rest, if revoked { " FROM " } else { " TO " })?;
    let privileges = split_list(privileges)
        .into_iter()
        // A privilege on some columns is not one on the table.
        .filter(|privilege| !privilege.contains('('))
        .map(|privilege| privilege.trim().to_ascii_uppercase())
        .collect();
    let object = object.strip_prefix("TABLE ").unwrap_or(object);
    Some(Entry { revoked, privileges, scope: scope(object)? })
}

fn scope(object: &str) -> Option<Scope> {
    let (schema, table) = split_outside_quotes(object, ".")?;
    match (unquote(schema), unquote(table)) {
        (None, None) if schema == "*" && table == "*" => Some(Scope::Everything),
        (Some(schema), None) if table == "*" => Some(Scope::Schema(schema)),
        (Some(schema), Some(table)) => Some(Scope::Table(schema, table)),
        _ => None,
    }
}

pub(crate) fn unquote(name: &str) -> Option<String> {
    Some(name.strip_prefix('`')?.strip_suffix('`')?.replace("``", "`"))
}

/// Splits at the first separator that stands neither in quotes nor in brackets.
pub(crate) fn split_outside_quotes<'t>(text: &'t str, separator: &str) -> Option<(&'t str, &'t str)> {
    let at = outside_quotes(text).find(|&at| text[at..].starts_with(separator))?;
    Some((&text[..at], &text[at + separator.len()..]))
}

pub(crate) fn split_list(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for at in outside_quotes(text).filter(|&at| text[at..].starts_with(',')) {
        parts.push(&text[start..at]);
        start = at + 1;
    }
    parts.push(&text[start..]);
    parts
}

/// Offsets of the characters that stand neither in quotes nor in brackets.
fn outside_quotes(text: &str) -> impl Iterator<Item = usize> {
    let (mut quote, mut depth) = (None, 0_usize);
    text.char_indices().filter_map(move |(at, character)| {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => {}
            (None, '`' | '\'' | '"') => quote = Some(character),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, _) if depth == 0 => return Some(at),
            (None, _) => {}
        }
        None
    })
}

/// SQL's LIKE, with a backslash as escape.
pub(crate) fn like(pattern: &str, text: &str) -> bool {
    let mut rest = pattern.chars();
    match rest.next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = rest.as_str();
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| like(rest, &text[at..]))
        }
        Some(character) => {
            let mut characters = text.chars();
            let Some(first) = characters.next() else { return false };
            let matches = match character {
                '_' => true,
                '\\' => rest.next() == Some(first),
                plain => plain == first,
            };
            matches && like(rest.as_str(), characters.as_str())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_wildcards_columns_and_revokes_are_understood() {
        let grants = Grants::parse([
            "GRANT USAGE, REPLICATION SLAVE ON *.* TO `sync`@`%`",
            "GRANT SELECT, INSERT ON `app\\_one`.* TO `sync`@`%`",
            "GRANT UPDATE ON `wild%`.* TO `sync`@`%` WITH GRANT OPTION",
            "GRANT SELECT (`a`, `b ON c`), DELETE ON `x`.`odd``. TO name` TO `sync`@`%`",
            "GRANT PROXY ON ''@'' TO 'root'@'localhost' WITH GRANT OPTION",
            "GRANT `a role`@`%` TO `sync`@`%`",
            "GRANT EXECUTE ON PROCEDURE `app`.`p` TO `sync`@`%`",
        ]);
        assert!(grants.has_global("REPLICATION SLAVE") && !grants.has_global("SELECT"));
        assert!(grants.has_on_schema("REPLICATION SLAVE", "anything"));
        assert!(grants.has_on_schema("SELECT", "app_one") && !grants.has_on_schema("SELECT", "appxone"));
        assert!(grants.has_on_schema("UPDATE", "wildlife") && !grants.has_on_schema("UPDATE", "tame"));
        assert!(grants.has_on_table("DELETE", "x", "odd`. TO name"));
        assert!(!grants.has_on_table("SELECT", "x", "odd`. TO name"), "two columns are not the table");
        assert!(!grants.has_on_table("DELETE", "x", "other") && !grants.has_on_schema("DELETE", "x"));
    }

    #[test]
    fn a_partial_revoke_takes_one_schema_out() {
        let grants = Grants::parse([
            "GRANT ALL PRIVILEGES ON *.* TO `sync`@`%`",
            "REVOKE SELECT, INSERT ON `app`.* FROM `sync`@`%`",
        ]);
        assert!(!grants.has_on_schema("SELECT", "app") && grants.has_on_schema("DELETE", "app"));
        assert!(grants.has_on_schema("SELECT", "other"));
    }

    #[test]
    fn both_names_of_one_privilege_count() {
        assert!(Grants::parse(["GRANT REPLICATION CLIENT ON *.* TO `a`@`b`"]).has_global("BINLOG MONITOR"));
        assert!(!Grants::parse(["GRANT SELECT ON *.* TO `a`@`b`", "nonsense", ""]).has_global("BINLOG MONITOR"));
    }
}
