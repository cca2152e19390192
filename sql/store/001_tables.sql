-- The store: captured messages, positions, leases, outcomes. Everything is keyed by pair, so several pairs may share one
-- store, and no name collides with the node schema (sql/node), which may be the same schema on the same server.
--
-- Every statement is repeatable. A semicolon at the end of a line ends a statement, and stands nowhere else.
-- All times are UTC, by the store server's clock.

-- What each direction is wished to do. A restarted process obeys it.
CREATE TABLE IF NOT EXISTS direction (
  pair       VARCHAR(64) NOT NULL,
  direction  VARCHAR(16) NOT NULL,
  declared   BOOLEAN     NOT NULL COMMENT 'off until first started; while off, nobody waits for this direction',
  capture    BOOLEAN     NOT NULL COMMENT 'the source is to be read',
  apply      BOOLEAN     NOT NULL COMMENT 'messages are to be applied',
  changed_at DATETIME(6) NOT NULL,
  PRIMARY KEY (pair, direction)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One source node's stream: how far it is read, and how far its messages are settled.
CREATE TABLE IF NOT EXISTS stream (
  pair        VARCHAR(64)     NOT NULL,
  stream      VARCHAR(128)    NOT NULL,
  epoch       BIGINT UNSIGNED NOT NULL COMMENT 'of the lease under which the stream is captured',
  position    MEDIUMTEXT      NOT NULL COMMENT 'JSON: where reading goes on',
  seen        MEDIUMTEXT      NOT NULL COMMENT 'JSON: the opposite checkpoints read before that position',
  last_seq    BIGINT UNSIGNED NOT NULL COMMENT 'of the last captured message, 0 for none',
  settled_seq BIGINT UNSIGNED NOT NULL COMMENT 'up to here every message is applied or has an outcome or failure row',
  created_at  DATETIME(6)     NOT NULL,
  captured_at DATETIME(6)     NULL,
  settled_at  DATETIME(6)     NULL,
  PRIMARY KEY (pair, stream)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What the process of a stream says of itself. Apart from `stream`, so that reports never wait for a capture.
CREATE TABLE IF NOT EXISTS stream_report (
  pair        VARCHAR(64)  NOT NULL,
  stream      VARCHAR(128) NOT NULL,
  state       VARCHAR(32)  NOT NULL,
  reason      TEXT         NULL,
  since       DATETIME(6)  NOT NULL COMMENT 'the state holds since then',
  counters    MEDIUMTEXT   NOT NULL COMMENT 'JSON',
  reported_at DATETIME(6)  NOT NULL,
  PRIMARY KEY (pair, stream)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS lease (
  pair        VARCHAR(64)     NOT NULL,
  subject     VARCHAR(128)    NOT NULL COMMENT 'a direction or a stream',
  holder      VARCHAR(190)    NOT NULL COMMENT 'empty when nobody holds it',
  epoch       BIGINT UNSIGNED NOT NULL COMMENT 'one more at each take-over',
  rules_hash  BIGINT UNSIGNED NOT NULL COMMENT 'of the rules that the holder runs with',
  acquired_at DATETIME(6)     NOT NULL,
  renewed_at  DATETIME(6)     NOT NULL,
  expires_at  DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, subject)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Heartbeats of the pair that a stream has read back from its source.
CREATE TABLE IF NOT EXISTS heartbeat_seen (
  pair    VARCHAR(64)     NOT NULL,
  stream  VARCHAR(128)    NOT NULL,
  writer  VARCHAR(128)    NOT NULL,
  counter BIGINT UNSIGNED NOT NULL,
  PRIMARY KEY (pair, stream, writer)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Columns of a table as messages have them; found by the hash of the definition.
CREATE TABLE IF NOT EXISTS layout (
  pair       VARCHAR(64)     NOT NULL,
  id         BIGINT UNSIGNED NOT NULL,
  definition MEDIUMTEXT      NOT NULL COMMENT 'JSON',
  created_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Captured messages, a batch to a row. Partitions of the days are added as they come. There is no partition for `all
-- the rest`: what has no partition is refused, never swallowed.
CREATE TABLE IF NOT EXISTS message_block (
  pair            VARCHAR(64)      NOT NULL,
  stream          VARCHAR(128)     NOT NULL,
  first_seq       BIGINT UNSIGNED  NOT NULL,
  last_seq        BIGINT UNSIGNED  NOT NULL COMMENT 'inclusive',
  day             DATE             NOT NULL COMMENT 'of the capture',
  committed_from  DATETIME(6)      NOT NULL,
  committed_to    DATETIME(6)      NOT NULL,
  captured_at     DATETIME(6)      NOT NULL,
  source_position TEXT             NOT NULL COMMENT 'of the last transaction in the block',
  format          TINYINT UNSIGNED NOT NULL,
  raw_bytes       INT UNSIGNED     NOT NULL COMMENT 'of the payload when unfolded',
  stored_bytes    INT UNSIGNED     NOT NULL,
  large_parts     INT UNSIGNED     NOT NULL COMMENT 'rows in message_large',
  seen            MEDIUMTEXT       NOT NULL COMMENT 'JSON array that messages point into',
  key_filter      MEDIUMBLOB       NOT NULL COMMENT 'sorted 4-byte little-endian hashes of the row keys in the block',
  payload         LONGBLOB         NOT NULL COMMENT 'COMPRESS() of a JSON array, one object per message',
  PRIMARY KEY (pair, stream, first_seq, day),
  KEY by_last_seq (pair, stream, last_seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
PARTITION BY RANGE COLUMNS (day) (PARTITION before_all VALUES LESS THAN ('2000-01-01'));

-- Values too big for a block's payload, in chunks.
CREATE TABLE IF NOT EXISTS message_large (
  pair      VARCHAR(64)     NOT NULL,
  stream    VARCHAR(128)    NOT NULL,
  first_seq BIGINT UNSIGNED NOT NULL COMMENT 'of the block',
  part      INT UNSIGNED    NOT NULL,
  day       DATE            NOT NULL COMMENT 'of the block',
  bytes     LONGBLOB        NOT NULL,
  PRIMARY KEY (pair, stream, first_seq, part, day)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin
PARTITION BY RANGE COLUMNS (day) (PARTITION before_all VALUES LESS THAN ('2000-01-01'));

-- What did not simply apply. Replaced when a batch is replayed.
CREATE TABLE IF NOT EXISTS outcome (
  pair         VARCHAR(64)     NOT NULL,
  stream       VARCHAR(128)    NOT NULL,
  seq          BIGINT UNSIGNED NOT NULL,
  table_schema VARCHAR(64)     NOT NULL,
  table_name   VARCHAR(64)     NOT NULL,
  row_key      LONGTEXT        NULL,
  status       VARCHAR(16)     NOT NULL COMMENT 'applied, held, stale, conflict_lost, superseded or discarded',
  reason       TEXT            NOT NULL,
  winner       VARCHAR(190)    NULL COMMENT 'id of the message that won',
  source_clock BIGINT          NULL,
  target_clock BIGINT          NULL,
  before_image LONGTEXT        NULL,
  after_image  LONGTEXT        NULL,
  decided_at   DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, stream, seq),
  KEY by_status (pair, status, decided_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Parked messages, for people to read; the message itself stays in its block until this row is gone.
CREATE TABLE IF NOT EXISTS failure (
  pair            VARCHAR(64)     NOT NULL,
  stream          VARCHAR(128)    NOT NULL,
  seq             BIGINT UNSIGNED NOT NULL,
  table_schema    VARCHAR(64)     NOT NULL,
  table_name      VARCHAR(64)     NOT NULL,
  op              VARCHAR(8)      NOT NULL,
  row_key         LONGTEXT        NULL,
  before_image    LONGTEXT        NULL,
  after_image     LONGTEXT        NULL,
  error_code      VARCHAR(32)     NOT NULL,
  error_text      TEXT            NOT NULL,
  attempts        INT UNSIGNED    NOT NULL COMMENT 'that the target refused; 0 while it only waits behind another',
  first_failed_at DATETIME(6)     NOT NULL,
  last_failed_at  DATETIME(6)     NOT NULL,
  next_retry_at   DATETIME(6)     NULL COMMENT 'NULL: with what it waits behind',
  PRIMARY KEY (pair, stream, seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Pairs of positions, one per side, taken at the same moment of the migration.
CREATE TABLE IF NOT EXISTS mark (
  pair         VARCHAR(64)     NOT NULL,
  id           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  name         VARCHAR(64)     NOT NULL,
  old_position MEDIUMTEXT      NOT NULL COMMENT 'JSON',
  new_position MEDIUMTEXT      NOT NULL COMMENT 'JSON',
  note         TEXT            NULL,
  taken_at     DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  UNIQUE KEY by_name (pair, name)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS journal (
  id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  pair       VARCHAR(64)     NOT NULL,
  kind       VARCHAR(32)     NOT NULL,
  text       TEXT            NOT NULL,
  written_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  KEY by_pair (pair, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
