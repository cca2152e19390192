-- Version 1.1: what the loser of a conflict had before it, why crossfade stopped a direction by itself, and canaries.
--
-- A column that is there already was added by a migration that was interrupted; that error is passed over.
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

ALTER TABLE outcome ADD COLUMN seen LONGTEXT NULL COMMENT 'JSON: what the writer of the message had before him';

ALTER TABLE direction ADD COLUMN reason TEXT NULL COMMENT 'why crossfade itself stopped it, NULL where a person did';

-- The last tagged transaction by which each stream's process has its tag proved. The reader of the target must have seen it
-- when it has passed the position.
CREATE TABLE IF NOT EXISTS canary (
  pair     VARCHAR(64)     NOT NULL,
  stream   VARCHAR(128)    NOT NULL COMMENT 'whose tag is to be proved',
  counter  BIGINT UNSIGNED NOT NULL COMMENT 'of the heartbeat in the transaction',
  position MEDIUMTEXT      NOT NULL COMMENT 'JSON: where the target stood after it',
  lost     VARCHAR(16)     NULL COMMENT 'hidden or untagged: what the reader of the target found instead',
  sent_at  DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, stream)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Rows that go back to the side that deleted them, kept until the stream of the side that keeps them has read its mark.
CREATE TABLE IF NOT EXISTS returned_rows (
  pair     VARCHAR(64)     NOT NULL,
  stream   VARCHAR(128)    NOT NULL COMMENT 'that captures them as changes of its own',
  token    BIGINT UNSIGNED NOT NULL COMMENT 'of the mark in the source',
  part     INT UNSIGNED    NOT NULL,
  block    LONGBLOB        NOT NULL COMMENT 'packed as in message_block',
  kept_at  DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, stream, token, part),
  KEY by_kept_at (pair, kept_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
