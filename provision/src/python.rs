//! Python environments with other projects' packages, one for each list of requirements.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{self, BuildCache};
use crate::command;
use crate::error::{ProvisionError, Result};

/// Written when all packages are installed. An environment contains its own path, so it cannot be
/// built in another folder and renamed.
const COMPLETE: &str = ".complete";

/// An environment and its packages.
#[derive(Debug, Clone, Copy)]
pub struct PythonEnvironment<'a> {
    /// Short name.
    pub name: &'a str,
    /// The interpreter: a name in PATH, or a path.
    pub python: &'a str,
    /// Lines for pip.
    pub requirements: &'a [&'a str],
}

impl PythonEnvironment<'_> {
    fn entry_key(&self) -> (String, String) {
        let requirements = self.requirements.join("\n");
        (
            format!("python-{}", self.name),
            cache::content_key(&[self.python.as_bytes(), requirements.as_bytes()]),
        )
    }

    /// Whether it exists already.
    pub fn is_present(&self, cache: &BuildCache) -> bool {
        let (name, key) = self.entry_key();
        cache.entry_path(&name, &key).join(COMPLETE).is_file()
    }

    /// Its folder, created if it does not exist yet.
    pub fn ensure_installed(&self, cache: &BuildCache) -> Result<PathBuf> {
        let (name, key) = self.entry_key();
        let path = cache.entry_path(&name, &key);
        let _lock = cache.lock(&name)?;
        if !path.join(COMPLETE).is_file() {
            eprintln!("installing Python packages: {}", self.requirements.join(" "));
            cache::remove_path(&path)?;
            self.install_packages(&path)?;
            cache.prune(&name, &key)?;
        }
        cache.use_entry(&name, &key);
        Ok(path)
    }

    fn install_packages(&self, path: &Path) -> Result<()> {
        command::run_command(Command::new(self.python).args(["-m", "venv"]).arg(path))?;
        let mut pip = Command::new(path.join("bin/pip"));
        command::run_command(
            pip.args(["install", "--quiet", "--disable-pip-version-check"]).args(self.requirements),
        )?;
        fs::write(path.join(COMPLETE), "").map_err(ProvisionError::io("write", path.join(COMPLETE)))
    }
}

/// The requirements in a file of pip, without comments.
pub fn parse_requirements(text: &str) -> Vec<&str> {
    text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_list_is_another_environment() {
        let one = PythonEnvironment { name: "x", python: "python3", requirements: &["a==1"] };
        assert_ne!(
            one.entry_key(),
            PythonEnvironment { requirements: &["a==2"], ..one }.entry_key()
        );
        assert_ne!(one.entry_key(), PythonEnvironment { python: "python3.12", ..one }.entry_key());
        assert_eq!(parse_requirements("# why\na==1\n\n b==2\n"), ["a==1", "b==2"]);
    }
}
