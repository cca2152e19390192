//! crossfade-binlog
