//! Updates gateways to another version or other settings, and deletes unused gateways.

mod unused;
pub mod updates;
