-- Version 1.4: when work waits for the databases.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- Limits that were set while processes run; they stand before those of the configuration.
CREATE TABLE IF NOT EXISTS throttle_limit (
  pair       VARCHAR(64) NOT NULL,
  name       VARCHAR(64) NOT NULL COMMENT 'as in [throttle]',
  value      VARCHAR(64) NOT NULL COMMENT 'as in [throttle], or off',
  changed_at DATETIME(6) NOT NULL,
  PRIMARY KEY (pair, name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Why the work of a process waits; no row where it does not.
CREATE TABLE IF NOT EXISTS throttled (
  pair    VARCHAR(64) NOT NULL,
  subject VARCHAR(64) NOT NULL COMMENT 'forward or reverse',
  reason  TEXT        NOT NULL,
  since   DATETIME(6) NOT NULL,
  PRIMARY KEY (pair, subject)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
