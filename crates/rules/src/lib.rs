//! crossfade-rules
