-- Columns that came after a table's first version. One that is there already is passed over.
-- A semicolon at the end of a line ends a statement, and stands nowhere else.
ALTER TABLE crossfade.checkpoint ADD COLUMN parked LONGTEXT NULL COMMENT 'of lane 65535: JSON, messages that the lanes have passed and that are set aside' AFTER writes;
ALTER TABLE crossfade.flag ADD COLUMN fenced BOOLEAN NOT NULL DEFAULT FALSE COMMENT 'users write nowhere: the flag is about to change' AFTER flag;
