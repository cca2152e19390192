-- Version 1.2: what people ask for messages that are set aside. Whoever holds the direction's lease carries it out.
--
-- A semicolon at the end of a line ends a statement, and stands nowhere else.

CREATE TABLE IF NOT EXISTS request (
  pair         VARCHAR(64)     NOT NULL,
  id           BIGINT UNSIGNED NOT NULL AUTO_INCREMENT,
  stream       VARCHAR(128)    NOT NULL,
  seq          BIGINT UNSIGNED NOT NULL COMMENT 'the message that it is about',
  kind         VARCHAR(16)     NOT NULL COMMENT 'retry, edit or discard',
  reason       TEXT            NULL COMMENT 'of a discard',
  edited_image LONGTEXT        NULL COMMENT 'JSON: the image to be applied, the message stays as it was captured',
  edited_block LONGBLOB        NULL COMMENT 'the same, packed as in message_block',
  requested_by VARCHAR(190)    NOT NULL,
  requested_at DATETIME(6)     NOT NULL,
  begun_at     DATETIME(6)     NULL COMMENT 'from then on it is carried out, whatever dies, and cannot be withdrawn',
  used_at      DATETIME(6)     NULL COMMENT 'the edited image was written, in the last attempt at the message',
  ended_at     DATETIME(6)     NULL,
  result       VARCHAR(16)     NULL COMMENT 'how the message stood then: applied, stale, conflict_lost, failed, held, discarded',
  error_code   VARCHAR(32)     NULL,
  text         TEXT            NULL COMMENT 'why, where it did not simply apply',
  PRIMARY KEY (id),
  KEY by_message (pair, stream, kind, seq, id),
  KEY by_end (pair, stream, ended_at, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
