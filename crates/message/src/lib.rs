//! crossfade-message
