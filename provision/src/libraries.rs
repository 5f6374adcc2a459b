//! Shared libraries that are not compiled here.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::BuildCache;
use crate::command;
use crate::error::Result;

/// ONNX Runtime's library (`libonnxruntime.so`, with `ThirdPartyNotices.txt` next to it), fetched
/// when it is not in the cache yet. Version and digest are pinned in the script, which developers
/// can also run to build only the model server.
pub fn ensure_onnx_runtime(cache: &BuildCache, root: &Path) -> Result<PathBuf> {
    cache.create()?;
    let mut script = Command::new(root.join("serving-runtime/fetch-onnxruntime.sh"));
    Ok(command::run_command(script.arg(cache.root()))?.trim().into())
}

pub fn has_onnx_runtime(cache: &BuildCache) -> bool {
    crate::registry_unit::file_names(cache.root()).iter().any(|name| {
        name.starts_with("onnxruntime-") && cache.path(name).join("ThirdPartyNotices.txt").is_file()
    })
}
