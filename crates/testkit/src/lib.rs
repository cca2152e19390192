//! crossfade-testkit
