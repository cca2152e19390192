-- Version 1.5: how the copying gets on.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- How many rows were copied by when, so that the time left counts what stops, crashes and waits have cost.
CREATE TABLE IF NOT EXISTS backfill_pace (
  pair       VARCHAR(64)     NOT NULL,
  epoch      BIGINT UNSIGNED NOT NULL COMMENT 'of the lease of the process that tells; an older one no longer does',
  history    LONGTEXT        NOT NULL COMMENT 'JSON, as its owner has written it',
  changed_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
