//! Build contexts: a folder with just the files that a Dockerfile copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use slipway_provision::{go_tools, libraries};

use crate::error::{Error, Result};
use crate::images::table::{Image, Part};
use crate::layout::Layout;
use crate::progress::Step;
use crate::shell;

/// `PROFILE=release` builds what is published; anything else what is tested.
const PROFILE_VARIABLE: &str = "PROFILE";

/// The plug-in of kubectl: no part of an image, and built with them because the promises run it.
const PLUGIN: &str = "kubectl-slipway";

/// Path of the plug-in.
pub fn plugin(layout: &Layout) -> PathBuf {
    layout.root().join("target").join(profile().1).join(PLUGIN)
}

/// A folder that is ready to build from.
pub(super) struct Context {
    /// Where it is.
    pub(super) dir: PathBuf,
    /// Hash of names, modes and contents.
    pub(super) hash: [u8; 32],
}

/// Builds the programs that the images need, in one call, so that cargo shares the work.
pub(super) fn cargo_build(layout: &Layout, images: &[&Image]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(layout.root()).args(["build", "--quiet", "--profile", profile().0]);
    let parts = images.iter().flat_map(|image| image.parts);
    let mut programs: Vec<[&str; 2]> = parts.filter_map(Part::program).collect();
    if programs.is_empty() {
        return Ok(());
    }
    programs.push(["slipway-cli", PLUGIN]);
    for [package, program] in programs {
        command.args(["--package", package, "--bin", program]);
    }
    Step::run("building programs", || shell::run(&mut command)).map(drop)
}

/// Puts the context of an image together, from nothing.
pub(super) fn assemble(layout: &Layout, image: &Image) -> Result<Context> {
    let dir = layout.root().join("target/e2e/image-context").join(image.name);
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(Error::io("remove", &dir))?;
    }
    fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    for part in image.parts {
        match *part {
            Part::Binary(_, program) => copy_binary(layout, program, &dir)?,
            Part::System(from, to) => copy(Path::new(from), &dir.join(to))?,
            Part::Workspace(from, to) => copy(&layout.root().join(from), &dir.join(to))?,
            Part::Text(name, text) => fs::write(dir.join(name), text).map_err(Error::io("write", dir.join(name)))?,
            Part::Tool(name) => copy(&go_tools::ensure_program(layout.cache(), layout.root(), name)?, &dir.join(name))?,
            Part::OnnxRuntime => {
                let library = onnx_runtime(layout)?;
                for name in ["libonnxruntime.so", "ThirdPartyNotices.txt"] {
                    copy(&library.with_file_name(name), &dir.join(name))?;
                }
            }
        }
    }
    let hash = hash(&dir)?;
    Ok(Context { dir, hash })
}

/// The ONNX Runtime library in the cache, for tests that run the runtime as a process.
pub fn onnx_runtime(layout: &Layout) -> Result<PathBuf> {
    Ok(libraries::onnx_runtime(layout.cache(), layout.root())?)
}

/// Profile for cargo and the folder it builds into.
fn profile() -> (&'static str, &'static str) {
    match std::env::var(PROFILE_VARIABLE).as_deref() {
        Ok("release") => ("release", "release"),
        _ => ("dev", "debug"),
    }
}

fn copy_binary(layout: &Layout, program: &str, dir: &Path) -> Result<()> {
    let built = layout.root().join("target").join(profile().1).join(program);
    shell::run(Command::new("strip").arg("-o").arg(dir.join(program)).arg(built)).map(drop)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop).map_err(Error::io("copy", from));
    }
    fs::create_dir_all(to).map_err(Error::io("create", to))?;
    children(from)?.iter().try_for_each(|child| copy(child, &to.join(child.file_name().unwrap_or_default())))
}

fn hash(dir: &Path) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    add(&mut hasher, dir, dir)?;
    Ok(hasher.finalize().into())
}

fn add(hasher: &mut Sha256, root: &Path, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        return children(path)?.iter().try_for_each(|child| add(hasher, root, child));
    }
    let metadata = fs::metadata(path).map_err(Error::io("read", path))?;
    let name = path.strip_prefix(root).unwrap_or(path).display();
    // Lengths keep a file's end from being taken for the next one's name.
    hasher.update(format!("{name}\0{:o}\0{}\0", metadata.permissions().mode(), metadata.len()));
    hasher.update(fs::read(path).map_err(Error::io("read", path))?);
    Ok(())
}

fn children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?;
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| entry.ok()).map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_names_and_contents() {
        let hash_of = |files: &[(&str, &str)]| {
            let dir = tempfile::tempdir().unwrap();
            files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
            hash(dir.path()).unwrap()
        };
        let one = hash_of(&[("a", "x"), ("b", "y")]);
        assert_eq!(one, hash_of(&[("b", "y"), ("a", "x")]));
        assert_ne!(one, hash_of(&[("a", "x"), ("b", "z")]));
        assert_ne!(one, hash_of(&[("a", "x"), ("c", "y")]));
        assert_ne!(one, hash_of(&[("a", "xb"), ("b", "y")]));
    }

    #[test]
    fn folders_are_copied_whole() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("from/inner")).unwrap();
        fs::write(dir.path().join("from/inner/file"), "text").unwrap();
        copy(&dir.path().join("from"), &dir.path().join("to")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("to/inner/file")).unwrap(), "text");
    }
}
