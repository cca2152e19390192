//! The five tables: parents, three kinds of children, and one of unique labels.

use crate::sql;
use crate::workload::Side;

/// Rows of a table are numbered from 1 to this.
pub const ROWS_PER_TABLE: u64 = 10;

/// Of these, the last so many of each side belong to that side alone while families are kept apart.
const OWN_PLACES: u64 = 2;
const OWN_CHILDREN: u64 = 1;

/// They differ in their clocks, and in what a foreign key does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Table {
    /// Parents, with a unique code. Clock: microseconds, kept by the server; at times a writer leaves it alone on purpose.
    Places,
    /// Children that keep their parent from going. Clock: a version that starts again with every insert.
    Guests,
    /// Children that go with their parent. Clock: whole seconds.
    Notes,
    /// Children that lose their parent. Clock: set by the writer, early on the old side, late on the new one, and at times
    /// backwards, not at all, or NULL.
    Seats,
    /// Unique labels. No clock.
    Labels,
}

impl Table {
    pub const ALL: [Table; 5] = [Table::Places, Table::Guests, Table::Notes, Table::Seats, Table::Labels];

    pub fn name(self) -> &'static str {
        match self {
            Table::Places => "places",
            Table::Guests => "guests",
            Table::Notes => "notes",
            Table::Seats => "seats",
            Table::Labels => "labels",
        }
    }

    /// The column that orders versions of a row.
    pub fn clock(self) -> Option<&'static str> {
        match self {
            Table::Places | Table::Notes | Table::Seats => Some("changed_at"),
            Table::Guests => Some("version"),
            Table::Labels => None,
        }
    }

    /// The column, beside the key, whose values are unique.
    pub fn unique(self) -> Option<&'static str> {
        match self {
            Table::Places => Some("code"),
            Table::Labels => Some("label"),
            Table::Guests | Table::Notes | Table::Seats => None,
        }
    }

    pub(super) fn has_parent(self) -> bool {
        matches!(self, Table::Guests | Table::Notes | Table::Seats)
    }

    pub(super) fn definition(self, schema: &str) -> String {
        let table = sql::full_name(schema, self.name());
        let places = sql::full_name(schema, Table::Places.name());
        let columns = match self {
            Table::Places => "code VARCHAR(30) NOT NULL UNIQUE, \
                changed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6)"
                .to_owned(),
            Table::Guests => {
                format!("place INT, version INT NOT NULL, FOREIGN KEY (place) REFERENCES {places} (id)")
            }
            Table::Notes => format!(
                "place INT, changed_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, \
                 FOREIGN KEY (place) REFERENCES {places} (id) ON DELETE CASCADE"
            ),
            Table::Seats => format!(
                "place INT, changed_at DATETIME(6), \
                 FOREIGN KEY (place) REFERENCES {places} (id) ON DELETE SET NULL"
            ),
            Table::Labels => "label VARCHAR(30) NOT NULL UNIQUE".to_owned(),
        };
        format!("CREATE TABLE {table} (id INT PRIMARY KEY, v VARCHAR(30) NOT NULL, {columns}) ENGINE=InnoDB")
    }

    /// The same on both sides, clocks included.
    pub(super) fn first_row(self, schema: &str, id: u64) -> String {
        let time = "'2026-01-01 00:00:00'";
        let (columns, values) = match self {
            Table::Places => ("code, changed_at", format!("'c{id}', {time}")),
            Table::Guests => ("place, version", "1, 1".to_owned()),
            Table::Notes | Table::Seats => ("place, changed_at", format!("NULL, {time}")),
            Table::Labels => ("label", format!("'c{id}'")),
        };
        format!(
            "INSERT INTO {} (id, v, {columns}) VALUES ({id}, 'first', {values})",
            sql::full_name(schema, self.name())
        )
    }

    /// Rows that both sides write, from 1.
    pub(super) fn shared(self, families: bool) -> u64 {
        match self {
            _ if families => ROWS_PER_TABLE,
            Table::Places => ROWS_PER_TABLE - 2 * OWN_PLACES,
            Table::Guests | Table::Notes | Table::Seats => ROWS_PER_TABLE - 2 * OWN_CHILDREN,
            Table::Labels => ROWS_PER_TABLE,
        }
    }

    /// Rows that only this side writes; empty where all are shared.
    pub(super) fn own(self, side: Side, families: bool) -> std::ops::Range<u64> {
        let shared = self.shared(families);
        let each = (ROWS_PER_TABLE - shared) / 2;
        let first = shared + 1 + side.number() * each;
        first..first + each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_shared_or_has_one_owner() {
        for families in [false, true] {
            for table in Table::ALL {
                let mut ids: Vec<u64> = (1..=table.shared(families)).collect();
                ids.extend(table.own(Side::Old, families));
                ids.extend(table.own(Side::New, families));
                assert_eq!(ids, (1..=ROWS_PER_TABLE).collect::<Vec<_>>(), "{table:?} {families}");
            }
        }
        assert_eq!(Table::Places.own(Side::New, false).count(), 2);
        assert_eq!(Table::Places.own(Side::New, true).count(), 0);
    }
}
