-- Version 1.7: which side has authority over an entity, message by message.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

-- Kept in one transaction with the messages around it. What was given on a side's node is `crossfade.authority` there.
CREATE TABLE IF NOT EXISTS authority_change (
  pair     VARCHAR(64)      NOT NULL,
  stream   VARCHAR(128)     NOT NULL COMMENT 'whose messages it is about',
  entity   VARBINARY(512)   NOT NULL COMMENT 'its key as text; empty for all that have no row of their own',
  from_seq BIGINT UNSIGNED  NOT NULL COMMENT 'it holds for messages from this one on',
  side     TINYINT UNSIGNED NOT NULL COMMENT '0 old, 1 new',
  version  BIGINT UNSIGNED  NOT NULL,
  PRIMARY KEY (pair, stream, entity, from_seq),
  KEY by_place (pair, stream, from_seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
