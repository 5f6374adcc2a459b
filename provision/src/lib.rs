//! What build, tests and demo need from elsewhere: programs built from Go modules, shared
//! libraries, compiled crates of the registry. All of it is kept in one cache for all checkouts of
//! a user ([`BuildCache`]), keyed by versions, and made once.
//!
//! Only the standard library is used, so that this compiles in seconds on a machine that has
//! nothing yet.

pub mod cache;
pub mod command;
pub mod crate_pool;
pub mod error;
pub mod go_tool;
pub mod go_tools;
pub mod libraries;
pub mod packages;
pub mod python;
pub mod registry_unit;

use std::path::{Path, PathBuf};

pub use cache::BuildCache;
pub use error::{ProvisionError, Result};

/// Root of the checkout that this crate was built in.
pub fn workspace_root() -> PathBuf {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    room.parent().unwrap_or(room).to_path_buf()
}

/// A time for people: `40 s`, `9 min 05 s`.
pub fn format_minutes(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}
