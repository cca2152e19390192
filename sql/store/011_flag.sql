-- Version 1.6: the read-write flag, the application instances that follow it, and what changes it step by step.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- The flag of the migration, and under `<pair>/<group>` those of groups of tables; no row before it was changed first. Each change is a compare-and-set of its version. Its mirror on
-- the sides' nodes is `crossfade.flag`.
CREATE TABLE IF NOT EXISTS flag_state (
  pair         VARCHAR(64)      NOT NULL,
  version      BIGINT UNSIGNED  NOT NULL COMMENT 'one more with each change',
  flag         TINYINT UNSIGNED NOT NULL COMMENT '0 old_only, 1 write_both, 2 read_new, 3 new_only',
  fenced_until DATETIME(6)      NULL COMMENT 'users write nowhere meanwhile; who reads the flag after that lifts the fence by a new version',
  changed_at   DATETIME(6)      NOT NULL,
  PRIMARY KEY (pair)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Instances of applications. One whose time is over must have stopped writing by itself, and is not waited for.
CREATE TABLE IF NOT EXISTS flag_instance (
  pair          VARCHAR(64)     NOT NULL,
  instance      VARCHAR(190)    NOT NULL,
  version       BIGINT UNSIGNED NOT NULL COMMENT 'nothing is written by an earlier one any more',
  expires_at    DATETIME(6)     NOT NULL,
  registered_at DATETIME(6)     NOT NULL,
  PRIMARY KEY (pair, instance)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What takes several steps: a cutover, a rollback, the end. At most one of a pair is open.
CREATE TABLE IF NOT EXISTS switch_run (
  id         BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  pair       VARCHAR(64)     NOT NULL,
  kind       VARCHAR(16)     NOT NULL COMMENT 'cutover, rollback, …',
  state      VARCHAR(16)     NOT NULL COMMENT 'open, done or undone',
  step       VARCHAR(32)     NOT NULL COMMENT 'the last one that was begun',
  memory     MEDIUMTEXT      NOT NULL COMMENT 'JSON: what later steps, or undoing, must know',
  holder     VARCHAR(190)    NOT NULL COMMENT 'who carries it out',
  held_until DATETIME(6)     NOT NULL COMMENT 'after that anybody may go on with it',
  begun_at   DATETIME(6)     NOT NULL,
  ended_at   DATETIME(6)     NULL,
  PRIMARY KEY (id),
  KEY by_pair (pair, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
