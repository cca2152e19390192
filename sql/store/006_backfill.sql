-- Version 1.4: copying what was there before the migration began.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- What the process that copies is wished to do.
CREATE TABLE IF NOT EXISTS backfill_wish (
  pair       VARCHAR(64) NOT NULL,
  wish       VARCHAR(16) NOT NULL COMMENT 'run or pause',
  changed_at DATETIME(6) NOT NULL,
  PRIMARY KEY (pair)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each table that is to be copied, by its name at the source: how far it is.
CREATE TABLE IF NOT EXISTS backfill (
  pair            VARCHAR(64)     NOT NULL,
  table_schema    VARCHAR(64)     NOT NULL,
  table_name      VARCHAR(64)     NOT NULL,
  state           VARCHAR(16)     NOT NULL COMMENT 'waiting, clearing, copying, copied or stopped',
  reason          TEXT            NULL COMMENT 'why it is stopped',
  epoch           BIGINT UNSIGNED NOT NULL COMMENT 'of the lease of the process that copies; an older one no longer finds the row',
  round           BIGINT UNSIGNED NOT NULL COMMENT 'one more with each restart, so that a chunk of before does not count',
  through_bound   LONGTEXT        NULL COMMENT 'JSON: rows up to and including this key are copied; text and bytes in hexadecimal digits',
  end_bound       LONGTEXT        NULL COMMENT 'JSON: the last key when the copy began; what comes after it comes by messages',
  total_rows      BIGINT UNSIGNED NULL COMMENT 'that the source had when the copy began; before that an estimate',
  read_rows       BIGINT UNSIGNED NOT NULL,
  filled_rows     BIGINT UNSIGNED NOT NULL COMMENT 'inserted',
  replaced_rows   BIGINT UNSIGNED NOT NULL COMMENT 'overwritten, since they were older',
  same_rows       BIGINT UNSIGNED NOT NULL COMMENT 'there already',
  kept_rows       BIGINT UNSIGNED NOT NULL COMMENT 'as new or newer at the target, or nothing tells',
  changed_rows    BIGINT UNSIGNED NOT NULL COMMENT 'left out: changed between the marks, or by users of the target',
  chunks          BIGINT UNSIGNED NOT NULL,
  rows_per_second DOUBLE          NOT NULL COMMENT 'of late',
  started_at      DATETIME(6)     NULL,
  copied_at       DATETIME(6)     NULL,
  changed_at      DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, table_schema, table_name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Rows that a person may want to look at: those that the target refused, which are read and tried again, and the first of
-- those that differ and were kept as the target has them.
CREATE TABLE IF NOT EXISTS backfill_row (
  pair         VARCHAR(64)     NOT NULL,
  table_schema VARCHAR(64)     NOT NULL,
  table_name   VARCHAR(64)     NOT NULL,
  key_hash     BIGINT UNSIGNED NOT NULL,
  kind         VARCHAR(16)     NOT NULL COMMENT 'refused or kept',
  row_key      LONGTEXT        NOT NULL COMMENT 'JSON',
  key_block    LONGBLOB        NOT NULL COMMENT 'the same, packed as in message_block',
  error_text   TEXT            NULL,
  attempts     INT UNSIGNED    NOT NULL,
  noted_at     DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, table_schema, table_name, key_hash)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
