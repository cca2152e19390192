-- Version 1.3: what comparisons of both sides have found.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

CREATE TABLE IF NOT EXISTS verification (
  pair     VARCHAR(64)     NOT NULL,
  id       BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  asked    TEXT            NOT NULL COMMENT 'the options, for people',
  begun_at DATETIME(6)     NOT NULL,
  ended_at DATETIME(6)     NULL COMMENT 'NULL while it runs, and for one that was broken off',
  reports  LONGTEXT        NULL COMMENT 'JSON: for each table rows, chunks, and what is missing or different',
  PRIMARY KEY (id),
  KEY by_pair (pair, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS difference (
  pair         VARCHAR(64)     NOT NULL,
  verification BIGINT UNSIGNED NOT NULL,
  id           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  table_schema VARCHAR(64)     NOT NULL COMMENT 'as the old side names it',
  table_name   VARCHAR(64)     NOT NULL,
  kind         VARCHAR(16)     NOT NULL COMMENT 'missing_on_old, missing_on_new or different',
  row_key      LONGTEXT        NULL COMMENT 'JSON, by the names of a side that has the row',
  columns      LONGTEXT        NOT NULL COMMENT 'JSON: the columns that differ, by their names on both sides',
  old_image    LONGTEXT        NULL COMMENT 'JSON as in the message table; NULL where there is none or it is very large',
  new_image    LONGTEXT        NULL,
  found_at     DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  KEY by_verification (pair, verification, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
