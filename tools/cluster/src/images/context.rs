//! Build contexts: a folder with only the files that a Dockerfile copies.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};
use slipway_provision::{go_tools, libraries};

use crate::error::{HarnessError, Result};
use crate::images::catalog::{ContextPart, ProjectImage};
use crate::layout::ClusterLayout;
use crate::progress::TimedStep;
use crate::shell;

/// `PROFILE=release` builds published programs; other values build tested ones.
const PROFILE_VARIABLE: &str = "PROFILE";

/// The plug-in of kubectl: not part of an image, but built with them because the promises run it.
const PLUGIN: &str = "kubectl-slipway";

pub fn plugin_path(layout: &ClusterLayout) -> PathBuf {
    layout.root().join("target").join(build_profile().1).join(PLUGIN)
}

/// A folder from which an image can be built.
pub(super) struct BuildContext {
    /// Path of the folder.
    pub(super) dir: PathBuf,
    /// Hash of names, modes and contents.
    pub(super) hash: [u8; 32],
}

/// Builds the programs of the images in one call, so that cargo shares the work.
pub(super) fn cargo_build(layout: &ClusterLayout, images: &[&ProjectImage]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.current_dir(layout.root()).args(["build", "--quiet", "--profile", build_profile().0]);
    let parts = images.iter().flat_map(|image| image.parts);
    let mut programs: Vec<[&str; 2]> = parts.filter_map(ContextPart::cargo_program).collect();
    if programs.is_empty() {
        return Ok(());
    }
    programs.push(["slipway-cli", PLUGIN]);
    for [package, program] in programs {
        command.args(["--package", package, "--bin", program]);
    }
    TimedStep::run("building programs", || shell::run_command(&mut command)).map(drop)
}

/// Creates the context of an image in an empty folder.
pub(super) fn assemble_context(
    layout: &ClusterLayout,
    image: &ProjectImage,
) -> Result<BuildContext> {
    let dir = layout.root().join("target/e2e/image-context").join(image.name);
    if dir.exists() {
        fs::remove_dir_all(&dir).map_err(HarnessError::io("remove", &dir))?;
    }
    fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
    for part in image.parts {
        match *part {
            ContextPart::Binary(_, program) => copy_binary(layout, program, &dir)?,
            ContextPart::System(from, to) => copy_path(Path::new(from), &dir.join(to))?,
            ContextPart::Workspace(from, to) => {
                copy_path(&layout.root().join(from), &dir.join(to))?
            }
            ContextPart::Text(name, text) => fs::write(dir.join(name), text)
                .map_err(HarnessError::io("write", dir.join(name)))?,
            ContextPart::Tool(name) => copy_path(
                &go_tools::ensure_program(layout.cache(), layout.root(), name)?,
                &dir.join(name),
            )?,
            ContextPart::OnnxRuntime => {
                let library = ensure_onnx_runtime(layout)?;
                for name in ["libonnxruntime.so", "ThirdPartyNotices.txt"] {
                    copy_path(&library.with_file_name(name), &dir.join(name))?;
                }
            }
        }
    }
    let hash = hash_dir(&dir)?;
    Ok(BuildContext { dir, hash })
}

/// The ONNX Runtime library in the cache, for tests that run the runtime as a process.
pub fn ensure_onnx_runtime(layout: &ClusterLayout) -> Result<PathBuf> {
    Ok(libraries::ensure_onnx_runtime(layout.cache(), layout.root())?)
}

/// Cargo's profile, and the folder of its output.
fn build_profile() -> (&'static str, &'static str) {
    match std::env::var(PROFILE_VARIABLE).as_deref() {
        Ok("release") => ("release", "release"),
        _ => ("dev", "debug"),
    }
}

fn copy_binary(layout: &ClusterLayout, program: &str, dir: &Path) -> Result<()> {
    let built = layout.root().join("target").join(build_profile().1).join(program);
    shell::run_command(Command::new("strip").arg("-o").arg(dir.join(program)).arg(built)).map(drop)
}

fn copy_path(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(drop).map_err(HarnessError::io("copy", from));
    }
    fs::create_dir_all(to).map_err(HarnessError::io("create", to))?;
    sorted_children(from)?
        .iter()
        .try_for_each(|child| copy_path(child, &to.join(child.file_name().unwrap_or_default())))
}

fn hash_dir(dir: &Path) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    add_to_hash(&mut hasher, dir, dir)?;
    Ok(hasher.finalize().into())
}

fn add_to_hash(hasher: &mut Sha256, root: &Path, path: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    if path.is_dir() {
        return sorted_children(path)?
            .iter()
            .try_for_each(|child| add_to_hash(hasher, root, child));
    }
    let metadata = fs::metadata(path).map_err(HarnessError::io("read", path))?;
    let name = path.strip_prefix(root).unwrap_or(path).display();
    // Lengths separate the contents of a file from the name of the next one.
    hasher.update(format!("{name}\0{:o}\0{}\0", metadata.permissions().mode(), metadata.len()));
    hasher.update(fs::read(path).map_err(HarnessError::io("read", path))?);
    Ok(())
}

fn sorted_children(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).map_err(HarnessError::io("list", dir))?;
    let mut paths: Vec<PathBuf> =
        entries.filter_map(|entry| entry.ok()).map(|entry| entry.path()).collect();
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
            hash_dir(dir.path()).unwrap()
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
        copy_path(&dir.path().join("from"), &dir.path().join("to")).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("to/inner/file")).unwrap(), "text");
    }
}
