-- Version 1.7: entities, which move from one side to the other by themselves.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- One row for each entity that is known; an empty key stands for all that have no side of their own. What is answered about an
-- entity follows from its row alone: whoever finds that a fence is over lifts it by a new version before he answers.
CREATE TABLE IF NOT EXISTS entity (
  pair         VARCHAR(64)      NOT NULL,
  entity       VARBINARY(512)   NOT NULL COMMENT 'its key as text',
  state        VARCHAR(16)      NOT NULL COMMENT 'identified, eligible, requested, copying, verified, moved, returned or failed',
  side         TINYINT UNSIGNED NULL COMMENT '0 old, 1 new: has authority; NULL: as all others',
  version      BIGINT UNSIGNED  NOT NULL COMMENT 'one more with each change of what is answered',
  fenced_until DATETIME(6)      NULL COMMENT 'nobody writes its rows meanwhile',
  given        BOOLEAN          NOT NULL DEFAULT TRUE COMMENT 'both nodes know who has authority; until then nobody writes its rows',
  attempts     INT UNSIGNED     NOT NULL DEFAULT 0 COMMENT 'that were undone since it was asked for',
  reason       TEXT             NULL COMMENT 'of the last one that was undone',
  run          BIGINT UNSIGNED  NULL COMMENT 'that it was asked for by last',
  batch        BIGINT UNSIGNED  NULL COMMENT 'that it was taken up in last',
  pause_ms     BIGINT UNSIGNED  NULL COMMENT 'of its last fence that was not undone',
  requested_at DATETIME(6)      NULL,
  changed_at   DATETIME(6)      NOT NULL,
  PRIMARY KEY (pair, entity),
  KEY by_state (pair, state, entity),
  KEY by_run (run, state, attempts, entity),
  KEY by_batch (batch),
  KEY by_given (pair, given)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Every state that an entity has had.
CREATE TABLE IF NOT EXISTS entity_event (
  id      BIGINT UNSIGNED  NOT NULL AUTO_INCREMENT,
  pair    VARCHAR(64)      NOT NULL,
  entity  VARBINARY(512)   NOT NULL,
  state   VARCHAR(16)      NOT NULL,
  side    TINYINT UNSIGNED NULL,
  version BIGINT UNSIGNED  NOT NULL,
  run     BIGINT UNSIGNED  NULL,
  batch   BIGINT UNSIGNED  NULL,
  reason  TEXT             NULL,
  at      DATETIME(6)      NOT NULL,
  PRIMARY KEY (id),
  KEY by_entity (pair, entity, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What a person has asked for with one command. Who carries it out holds it for a while at a time.
CREATE TABLE IF NOT EXISTS entity_run (
  id         BIGINT UNSIGNED  NOT NULL AUTO_INCREMENT,
  pair       VARCHAR(64)      NOT NULL,
  goes_to    TINYINT UNSIGNED NOT NULL COMMENT '0 old, 1 new',
  words      TEXT             NOT NULL COMMENT 'of the command: the same ones go on with it',
  state      VARCHAR(16)      NOT NULL COMMENT 'open or done',
  has_asked  BOOLEAN          NOT NULL DEFAULT FALSE COMMENT 'all that it is about are requested',
  holder     VARCHAR(190)     NOT NULL COMMENT 'who carries it out',
  held_until DATETIME(6)      NOT NULL COMMENT 'after that anybody may go on with it',
  begun_at   DATETIME(6)      NOT NULL,
  ended_at   DATETIME(6)      NULL,
  PRIMARY KEY (id),
  KEY by_pair (pair, state)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Entities that were taken up together, under one fence.
CREATE TABLE IF NOT EXISTS entity_batch (
  id       BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  pair     VARCHAR(64)     NOT NULL,
  run      BIGINT UNSIGNED NOT NULL,
  entities INT UNSIGNED    NOT NULL,
  begun_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (id),
  KEY by_run (run)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- For how long answers are given; whoever fences waits for so long.
CREATE TABLE IF NOT EXISTS entity_lease (
  pair         VARCHAR(64)     NOT NULL,
  lease_ms     BIGINT UNSIGNED NOT NULL,
  former_until DATETIME(6)     NULL COMMENT 'answers that were given for longer may count until then',
  PRIMARY KEY (pair)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
