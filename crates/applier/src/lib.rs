//! crossfade-applier
