-- Version 1.5: comparing again and again, in the background.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- Whether the forward process is to compare; no row: as it is configured.
CREATE TABLE IF NOT EXISTS verify_wish (
  pair       VARCHAR(64) NOT NULL,
  wish       VARCHAR(16) NOT NULL COMMENT 'on or off',
  changed_at DATETIME(6) NOT NULL,
  PRIMARY KEY (pair)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

ALTER TABLE verification
  ADD COLUMN epoch BIGINT UNSIGNED NULL COMMENT 'of the lease of the process that compares in the background; an older one no longer finds the row. NULL: a person asked',
  ADD COLUMN tables INT UNSIGNED NULL COMMENT 'that a round in the background compares; reports has those that are done';
