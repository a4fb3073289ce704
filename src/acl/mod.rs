//! (filled by its slice)
