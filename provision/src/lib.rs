//! Provides external artifacts for build, tests and demo: programs built from Go modules, shared
//! libraries, compiled crates of the registry. All are kept in one cache for all checkouts of a
//! user ([`BuildCache`]), keyed by versions, and made once.
//!
//! The crate uses only the standard library, so that it compiles in seconds on a machine without
//! any caches.

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

/// Root of the checkout in which this crate was built.
pub fn workspace_root() -> PathBuf {
    let room = Path::new(env!("CARGO_MANIFEST_DIR"));
    room.parent().unwrap_or(room).to_path_buf()
}

/// A duration for messages: `40 s`, `9 min 05 s`.
pub fn format_minutes(seconds: u64) -> String {
    if seconds < 60 {
        format!("{seconds} s")
    } else {
        format!("{} min {:02} s", seconds / 60, seconds % 60)
    }
}
