//! Event type codes, of both servers (MySQL source documentation, "Log_event_type"; MariaDB knowledge base, "2-Binlog
//! Event Header").

pub(crate) const QUERY: u8 = 2;
pub(crate) const STOP: u8 = 3;
pub(crate) const ROTATE: u8 = 4;
pub(crate) const INTVAR: u8 = 5;
pub(crate) const APPEND_BLOCK: u8 = 9;
pub(crate) const DELETE_FILE: u8 = 11;
pub(crate) const RAND: u8 = 13;
pub(crate) const USER_VAR: u8 = 14;
pub(crate) const FORMAT_DESCRIPTION: u8 = 15;
pub(crate) const XID: u8 = 16;
pub(crate) const BEGIN_LOAD_QUERY: u8 = 17;
pub(crate) const EXECUTE_LOAD_QUERY: u8 = 18;
pub(crate) const TABLE_MAP: u8 = 19;
pub(crate) const INCIDENT: u8 = 26;
pub(crate) const HEARTBEAT: u8 = 27;
pub(crate) const IGNORABLE: u8 = 28;
pub(crate) const ROWS_QUERY: u8 = 29;
pub(crate) const GTID: u8 = 33;
pub(crate) const ANONYMOUS_GTID: u8 = 34;
pub(crate) const PREVIOUS_GTIDS: u8 = 35;
pub(crate) const TRANSACTION_CONTEXT: u8 = 36;
pub(crate) const VIEW_CHANGE: u8 = 37;
pub(crate) const XA_PREPARE: u8 = 38;
pub(crate) const TRANSACTION_PAYLOAD: u8 = 40;
pub(crate) const HEARTBEAT_V2: u8 = 41;
pub(crate) const GTID_TAGGED: u8 = 42;
pub(crate) const MARIADB_ANNOTATE_ROWS: u8 = 160;
pub(crate) const MARIADB_BINLOG_CHECKPOINT: u8 = 161;
pub(crate) const MARIADB_GTID: u8 = 162;
pub(crate) const MARIADB_GTID_LIST: u8 = 163;
pub(crate) const MARIADB_START_ENCRYPTION: u8 = 164;
pub(crate) const MARIADB_QUERY_COMPRESSED: u8 = 165;

/// The header's flag of events that a reader may skip without knowing them (LOG_EVENT_IGNORABLE_F).
pub(crate) const IGNORABLE_FLAG: u16 = 0x80;

/// Events that open a transaction, and events between transactions.
pub(crate) fn is_never_inside_payload(code: u8) -> bool {
    matches!(
        code,
        STOP | ROTATE
            | FORMAT_DESCRIPTION
            | INCIDENT
            | HEARTBEAT
            | HEARTBEAT_V2
            | GTID
            | ANONYMOUS_GTID
            | GTID_TAGGED
            | PREVIOUS_GTIDS
            | TRANSACTION_PAYLOAD
    )
}
