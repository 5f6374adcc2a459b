//! Reads the files of the Secret `slipway-keys`, for gateways, model servers and workers.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::ops::RangeInclusive;
use std::path::Path;

/// Length of `master` in bytes.
const MASTER_BYTES: RangeInclusive<usize> = 32..=64;
/// Length of `token` in bytes, without trailing white space.
pub const TOKEN_BYTES: RangeInclusive<usize> = 32..=256;

/// The bytes of a file, or why they are not a key.
pub type KeyFileContent = Result<Vec<u8>, String>;

/// Reads the file `master` of a directory, from which keys are derived.
///
/// # Errors
/// When it exists but cannot be read.
pub fn read_master(directory: &Path) -> io::Result<KeyFileContent> {
    read_bounded_file(&directory.join("master"), &MASTER_BYTES, false)
}

/// Reads the file `token` of a directory, which authenticates clients, without trailing white
/// space.
///
/// # Errors
/// As for [`read_master`].
pub fn read_token(directory: &Path) -> io::Result<KeyFileContent> {
    read_bounded_file(&directory.join("token"), &TOKEN_BYTES, true)
}

/// Reads a file of limited size: its bytes, or why they are not a key.
fn read_bounded_file(
    path: &Path,
    bytes: &RangeInclusive<usize>,
    trim: bool,
) -> io::Result<KeyFileContent> {
    // Checked before opening: a pipe would block the reader.
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => return Ok(Err("is no file".into())),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Err("is not there".into()));
        }
        Err(error) => return Err(error),
    }
    let mut content = Vec::new();
    // Leaves room for a line ending that an editor has added.
    let limit = bytes.end().saturating_add(3) as u64;
    File::open(path)?.take(limit).read_to_end(&mut content)?;
    if trim {
        content.truncate(content.trim_ascii_end().len());
    }
    if bytes.contains(&content.len()) {
        return Ok(Ok(content));
    }
    Ok(Err(format!("must have {} to {} bytes", bytes.start(), bytes.end())))
}
