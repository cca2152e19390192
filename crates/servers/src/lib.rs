//! crossfade-servers
