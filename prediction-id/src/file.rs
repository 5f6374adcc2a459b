//! The files of the Secret `slipway-keys`, as gateways, model servers and workers read them.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::ops::RangeInclusive;
use std::path::Path;

/// Length of `master`.
const MASTER_BYTES: RangeInclusive<usize> = 32..=64;
/// Length of `token`, without white space at its end.
pub const TOKEN_BYTES: RangeInclusive<usize> = 32..=256;

/// What was read: the bytes, or why they are no key.
pub type KeyFileContent = Result<Vec<u8>, String>;

/// The file `master` of a directory, from which keys are derived.
///
/// # Errors
/// When it cannot be read for another reason than that it is not there.
pub fn read_master(directory: &Path) -> io::Result<KeyFileContent> {
    read_bounded_file(&directory.join("master"), &MASTER_BYTES, false)
}

/// The file `token` of a directory, which people and programs show, without white space at its end.
///
/// # Errors
/// Those of [`read_master`].
pub fn read_token(directory: &Path) -> io::Result<KeyFileContent> {
    read_bounded_file(&directory.join("token"), &TOKEN_BYTES, true)
}

/// Reads a file of a size within bounds: its bytes, or why they are no key.
fn read_bounded_file(
    path: &Path,
    bytes: &RangeInclusive<usize>,
    trim: bool,
) -> io::Result<KeyFileContent> {
    // Looked at before it is opened: a pipe would hold the reader up.
    match std::fs::metadata(path) {
        Ok(found) if !found.is_file() => return Ok(Err("is no file".into())),
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Err("is not there".into()));
        }
        Err(error) => return Err(error),
    }
    let mut content = Vec::new();
    // Room for the end of a line that an editor has added.
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
