//! `crossfade schema`: how both sides' definitions differ is told, and the new side gets the tables that it lacks.

mod copy;
mod diff;

use crossfade_tests::{json, says};

/// Tables as people have them: a circle of foreign keys, one that refers to itself, every kind of key, checks, generated and invisible
/// columns, partitions, other character sets, names and defaults with quotes.
pub const TABLES: [&str; 6] = [
    "CREATE TABLE people (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT, mail VARCHAR(190) CHARACTER SET latin1 NOT NULL,
        `odd, ``name)` VARCHAR(40) NOT NULL DEFAULT 'it''s, (b) \\\\', kind ENUM('a','it''s','x,y') NOT NULL DEFAULT 'it''s',
        born DATE NOT NULL DEFAULT '0000-00-00', team_id INT NULL, age INT NOT NULL DEFAULT 1 COMMENT 'years? (whole)',
        lower_mail VARCHAR(190) CHARACTER SET latin1 GENERATED ALWAYS AS (LOWER(mail)) STORED, hidden INT INVISIBLE DEFAULT 7,
        updated_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6) ON UPDATE CURRENT_TIMESTAMP(6),
        PRIMARY KEY (id), UNIQUE KEY mail (mail), KEY `by kind` (kind, age DESC), KEY prefix (`odd, ``name)`(10)),
        FULLTEXT KEY words (`odd, ``name)`), CONSTRAINT old_enough CHECK (age > 0 AND mail <> ''))
        ENGINE=InnoDB AUTO_INCREMENT=4711 DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin COMMENT='it''s, (people)'",
    "CREATE TABLE teams (id INT PRIMARY KEY, lead_id BIGINT UNSIGNED NULL, parent INT NULL,
        CONSTRAINT team_lead FOREIGN KEY (lead_id) REFERENCES people (id) ON DELETE SET NULL,
        CONSTRAINT team_parent FOREIGN KEY (parent) REFERENCES teams (id) ON DELETE CASCADE ON UPDATE CASCADE)",
    "ALTER TABLE people ADD CONSTRAINT person_team FOREIGN KEY (team_id) REFERENCES teams (id)",
    "CREATE TABLE events (id INT NOT NULL, day DATE NOT NULL, v JSON, PRIMARY KEY (id, day))
        PARTITION BY RANGE (YEAR(day)) (PARTITION `p 1` VALUES LESS THAN (2020), PARTITION p2 VALUES LESS THAN MAXVALUE)",
    "CREATE TABLE badges (person_id BIGINT UNSIGNED NOT NULL, label CHAR(3) CHARACTER SET utf16 NOT NULL, bits BIT(5) DEFAULT b'101',
        price DECIMAL(10,2) UNSIGNED NOT NULL DEFAULT '1.50', PRIMARY KEY (person_id, label),
        CONSTRAINT badge_person FOREIGN KEY (person_id) REFERENCES people (id))",
    "INSERT INTO people (id, mail, team_id) VALUES (5000, 'a@b.c', NULL)",
];

/// A session that takes zero dates, as an old database may have them, and uses the migration's schema.
pub fn in_schema<'s>(statements: &[&'s str]) -> Vec<&'s str> {
    [&["USE {schema}", "SET SESSION sql_mode = ''"], statements].concat()
}
