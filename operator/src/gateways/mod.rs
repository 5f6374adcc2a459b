//! Updates of gateways to another version or other settings, and the end of those that nobody uses.

mod unused;
pub mod updates;
