-- What every node of both sides holds beside the user's tables. Repeatable; keyed by pair.
-- A semicolon at the end of a line ends a statement, and stands nowhere else.
CREATE DATABASE IF NOT EXISTS crossfade DEFAULT CHARACTER SET utf8mb4;

-- How far each lane has applied; updated first in every transaction that crossfade writes to this node.
CREATE TABLE IF NOT EXISTS crossfade.checkpoint (
  pair        VARCHAR(64)       NOT NULL,
  stream      VARCHAR(128)      NOT NULL,
  lane        SMALLINT UNSIGNED NOT NULL,
  seq         BIGINT UNSIGNED   NOT NULL COMMENT 'this lane is applied up to and including this message',
  batch_first BIGINT UNSIGNED   NOT NULL,
  batch_last  BIGINT UNSIGNED   NOT NULL COMMENT 'inclusive',
  lanes       SMALLINT UNSIGNED NOT NULL COMMENT 'lanes that the batch was planned for',
  plan_hash   BIGINT UNSIGNED   NOT NULL COMMENT 'of what the batch was planned by: mapping, keys, foreign keys, the rule for lanes',
  epoch       BIGINT UNSIGNED   NOT NULL COMMENT 'of the lease; an older process no longer finds its row',
  writes      BIGINT UNSIGNED   NOT NULL COMMENT 'counts every write, so that each one changes the row and is in the binlog',
  updated_at  DATETIME(6)       NOT NULL,
  PRIMARY KEY (pair, stream, lane)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Deleted rows, for as long as a late change could bring one back.
CREATE TABLE IF NOT EXISTS crossfade.tombstone (
  pair         VARCHAR(64)     NOT NULL,
  table_schema VARCHAR(64)     NOT NULL,
  table_name   VARCHAR(64)     NOT NULL,
  row_key_hash BIGINT UNSIGNED NOT NULL,
  row_key      LONGTEXT        NOT NULL,
  deleted_at   DATETIME(6)     NOT NULL,
  clock        BIGINT          NULL,
  stream       VARCHAR(128)    NOT NULL,
  seq          BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (pair, table_schema, table_name, row_key_hash),
  KEY by_deleted_at (pair, deleted_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Written by the process that applies here, read back by the one that captures here: proof that the reader has passed a moment.
CREATE TABLE IF NOT EXISTS crossfade.heartbeat (
  pair    VARCHAR(64)     NOT NULL,
  writer  VARCHAR(128)    NOT NULL,
  counter BIGINT UNSIGNED NOT NULL,
  beat_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, writer)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Marks in the binlog: at this place, rows that the store keeps under the token go back to the other side.
CREATE TABLE IF NOT EXISTS crossfade.returned (
  pair       VARCHAR(64)     NOT NULL,
  stream     VARCHAR(128)    NOT NULL COMMENT 'that captures them',
  token      BIGINT UNSIGNED NOT NULL,
  written_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, stream, token),
  KEY by_written_at (pair, written_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The migration's flag, mirrored from the store.
CREATE TABLE IF NOT EXISTS crossfade.flag (
  pair       VARCHAR(64)      NOT NULL,
  version    BIGINT UNSIGNED  NOT NULL,
  flag       TINYINT UNSIGNED NOT NULL COMMENT '0 old_only, 1 write_both, 2 read_new, 3 new_only',
  changed_at DATETIME(6)      NOT NULL,
  PRIMARY KEY (pair)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Which side users write an entity's rows on, as of this place in the binlog. An empty entity stands for all that have no row.
CREATE TABLE IF NOT EXISTS crossfade.authority (
  pair       VARCHAR(64)      NOT NULL,
  entity     VARBINARY(512)   NOT NULL COMMENT 'its key as text',
  side       TINYINT UNSIGNED NOT NULL COMMENT '0 old, 1 new',
  version    BIGINT UNSIGNED  NOT NULL COMMENT 'one more with each change; an earlier one changes nothing',
  changed_at DATETIME(6)      NOT NULL,
  PRIMARY KEY (pair, entity)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
