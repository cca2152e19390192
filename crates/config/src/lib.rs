//! crossfade-config
