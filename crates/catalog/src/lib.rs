//! crossfade-catalog
