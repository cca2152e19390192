-- Version 1.5: indexes of the target that are dropped before rows are copied, and built when they are.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- One row for each index, kept before it is dropped.
CREATE TABLE IF NOT EXISTS deferred_index (
  pair          VARCHAR(64) NOT NULL,
  table_schema  VARCHAR(64) NOT NULL COMMENT 'of the table by its name at the source, as in backfill',
  table_name    VARCHAR(64) NOT NULL,
  index_name    VARCHAR(64) NOT NULL,
  target_schema VARCHAR(64) NOT NULL,
  target_table  VARCHAR(64) NOT NULL,
  definition    LONGTEXT    NOT NULL COMMENT 'what follows the table in CREATE INDEX',
  state         VARCHAR(16) NOT NULL COMMENT 'to_drop, to_build, built, left or failed',
  reason        TEXT        NULL COMMENT 'why it was left, or could not be built',
  changed_at    DATETIME(6) NOT NULL,
  PRIMARY KEY (pair, table_schema, table_name, index_name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
