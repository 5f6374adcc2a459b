//! The checkout and the cache: their contents, and the commands that are run in them.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use slipway_provision::crate_pool::CratePool;
use slipway_provision::{
    BuildCache, format_minutes, go_tools, libraries, packages, python, registry_unit,
};

use crate::group::CLIENT_ENVIRONMENTS;

/// The packages that the demo builds, without benchmarks, fuzzing, conformance and Parquet.
pub(crate) const DEMO_PACKAGES: [&str; 6] = [
    "slipway-operator",
    "slipway-gateway",
    "slipway-runtime",
    "slipway-cluster",
    "slipway-e2e",
    "slipway-loadgen",
];
/// Seconds to compile the crates of the registry for the demo, and for everything, on two idle
/// cores.
const CRATE_SECONDS: (u64, u64) = (420, 900);

/// A checkout of the workspace, and the user's cache.
#[derive(Debug, Clone)]
pub(crate) struct Checkout {
    pub(crate) root: PathBuf,
    pub(crate) cache: BuildCache,
}

/// How much of a build exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BuildState {
    /// No part of it.
    Cold,
    /// The crates of the registry, in the cache.
    CratesCached,
    /// This checkout was built before.
    Built,
}

/// An external artifact that the cache lacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MissingArtifact {
    pub(crate) description: String,
    /// Seconds to obtain it on two idle cores.
    pub(crate) seconds: u64,
}

impl Checkout {
    pub(crate) fn open() -> slipway_provision::Result<Self> {
        Ok(Self { root: slipway_provision::workspace_root(), cache: BuildCache::from_env()? })
    }

    /// A program with its arguments, run at the root of the checkout.
    pub(crate) fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.root).args(arguments);
        command
    }

    /// cargo, with the option that forbids it to change `Cargo.lock`.
    pub(crate) fn cargo_command(&self, arguments: &[&str]) -> Command {
        let mut command = self.command("cargo", &arguments[..1]);
        command.arg("--locked").args(&arguments[1..]);
        command
    }

    /// Runs a build by cargo, with its progress if the output is a terminal.
    pub(crate) fn cargo_build(&self, arguments: &[&str]) -> Result<(), String> {
        let mut command = self.cargo_command(arguments);
        if !std::io::stderr().is_terminal() {
            command.arg("--quiet");
        }
        match command.status() {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => {
                Err(format!("`{}` failed", slipway_provision::command::command_line(&command)))
            }
            Err(error) => Err(format!("cannot start cargo: {error}")),
        }
    }

    /// Path of a program that the workspace builds.
    pub(crate) fn built_program(&self, program: &str) -> PathBuf {
        self.build_dir().join(program)
    }

    /// Cargo's build directory.
    pub(crate) fn build_dir(&self) -> PathBuf {
        self.root.join("target/debug")
    }

    /// Whether this checkout was built before.
    pub(crate) fn is_built(&self) -> bool {
        self.built_program("slipway-e2e").is_file()
    }

    /// How much of a build exists.
    pub(crate) fn build_state(&self) -> BuildState {
        if self.is_built() {
            return BuildState::Built;
        }
        match CratePool::open(&self.cache, &self.root) {
            Ok(pool) if pool.is_present() => BuildState::CratesCached,
            _ => BuildState::Cold,
        }
    }

    /// Whether cargo-deny is in the cache.
    pub(crate) fn has_cargo_deny(&self) -> bool {
        registry_unit::file_names(self.cache.root())
            .iter()
            .any(|name| name.starts_with("cargo-deny-"))
    }

    /// Restores compiled crates of the registry from the cache. A failure is not fatal: the build
    /// only takes longer.
    pub(crate) fn restore_crates(&self) {
        match CratePool::open(&self.cache, &self.root)
            .and_then(|pool| pool.restore(&self.build_dir()))
        {
            Ok(moved) if moved.units > 0 => {
                println!(
                    "  {} compiled units of the registry's crates came from the cache",
                    moved.units
                );
            }
            Ok(_) => {}
            Err(error) => eprintln!("warning: no compiled crates from the cache: {error}"),
        }
    }

    /// Saves compiled crates of the registry to the cache. A failure is not fatal: the build of
    /// another checkout only takes longer.
    pub(crate) fn save_crates(&self) {
        match CratePool::open(&self.cache, &self.root).and_then(|pool| pool.save(&self.build_dir()))
        {
            Ok(moved) if moved.units > 0 => {
                println!(
                    "  {} compiled units of the registry's crates went into the cache",
                    moved.units
                );
            }
            Ok(_) => {}
            Err(error) => eprintln!("warning: compiled crates are not kept: {error}"),
        }
    }

    /// The Go tools of this list that the cache lacks.
    pub(crate) fn missing_tools(&self, names: &[&str]) -> Vec<MissingArtifact> {
        let tools = names.iter().filter_map(|name| go_tools::find_tool(name).ok());
        let missing = tools.filter(|tool| !tool.is_present(&self.cache, &self.root));
        let missing = missing.map(|tool| MissingArtifact {
            description: format!("{} {}, built from its Go module", tool.name, tool.version),
            seconds: tool.cold_seconds.into(),
        });
        missing.collect()
    }

    /// The other artifacts that the cache lacks; `all` for the tests, else for the demo.
    pub(crate) fn missing_prerequisites(&self, all: bool) -> Vec<MissingArtifact> {
        let mut missing = Vec::new();
        if !libraries::has_onnx_runtime(&self.cache) {
            missing.push(MissingArtifact {
                description: "ONNX Runtime's library, from its Python package".into(),
                seconds: 15,
            });
        }
        if self.build_state() == BuildState::Cold {
            let seconds = if all { CRATE_SECONDS.1 } else { CRATE_SECONDS.0 };
            missing.push(MissingArtifact {
                description: "compiled crates of the registry".into(),
                seconds,
            });
        }
        if !self.cache.path("base").is_dir() {
            missing.push(MissingArtifact {
                description: "base images of Debian packages".into(),
                seconds: 40,
            });
        }
        missing
    }

    pub(crate) fn print_missing(&self, missing: &[MissingArtifact]) {
        if missing.is_empty() {
            println!(
                "Everything that comes from elsewhere is in the cache, {}.",
                self.cache.root().display()
            );
            return;
        }
        println!("Missing, made once and kept in the cache, {}:", self.cache.root().display());
        for MissingArtifact { description: what, seconds } in missing {
            println!("  {what:<52} {}", format_minutes(*seconds));
        }
    }

    /// Builds Go tools in parallel with other work, at a lower priority, so that their compilers
    /// use the idle time of that work.
    pub(crate) fn start_tool_build(&self, names: &[&'static str]) -> BackgroundBuild {
        let (checkout, names) = (self.clone(), names.to_vec());
        BackgroundBuild(Some(std::thread::spawn(move || {
            go_tools::ensure_tools(&checkout.cache, &checkout.root, &names)
        })))
    }

    /// The folders of the Python environments of the public clients, which are created if they do
    /// not exist.
    pub(crate) fn client_environments(&self) -> slipway_provision::Result<Vec<PathBuf>> {
        let make = |(name, file): &(&str, &str)| {
            let path = self.root.join(file);
            let text = std::fs::read_to_string(&path)
                .map_err(slipway_provision::ProvisionError::io("read", path))?;
            let requirements = python::parse_requirements(&text);
            python::PythonEnvironment { name, python: "python3", requirements: &requirements }
                .ensure_installed(&self.cache)
        };
        CLIENT_ENVIRONMENTS.iter().map(make).collect()
    }

    /// Go tools for a foreign cluster: kubectl and helm, if they are not in PATH.
    pub(crate) fn client_tools(&self) -> &'static [&'static str] {
        match (packages::is_in_path("/usr/bin/kubectl"), packages::is_in_path("/usr/bin/helm")) {
            (true, true) => &[],
            (true, false) => &["helm"],
            (false, true) => &["kubernetes"],
            (false, false) => go_tools::CLIENTS,
        }
    }

    /// Path of a program of another project, built when it is not in the cache yet.
    pub(crate) fn ensure_tool(&self, program: &str) -> slipway_provision::Result<PathBuf> {
        go_tools::ensure_program(&self.cache, &self.root, program)
    }
}

/// Work in the background. When it is dropped before its end, the programs that it runs are ended.
#[derive(Debug)]
pub(crate) struct BackgroundBuild(Option<JoinHandle<slipway_provision::Result<()>>>);

impl BackgroundBuild {
    /// Waits for the end of the work.
    pub(crate) fn join(mut self) -> Result<(), String> {
        match self.0.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => outcome.map_err(|error| error.to_string()),
            Some(Err(_)) | None => Err("building tools came to an unexpected end".into()),
        }
    }
}

impl Drop for BackgroundBuild {
    fn drop(&mut self) {
        if self.0.take().is_some_and(|thread| !thread.is_finished()) {
            // Children of this process; the next build discards their partial results.
            let mut end = Command::new("pkill");
            let _ = end.args(["-TERM", "-P", &std::process::id().to_string()]).status();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_cache_lacks_everything() {
        let root = slipway_provision::workspace_root();
        let checkout =
            Checkout { root, cache: BuildCache::with_root("/nonexistent/slipway-cache") };
        assert_eq!(checkout.missing_tools(go_tools::DEMO).len(), go_tools::DEMO.len());
        assert!(
            checkout
                .missing_prerequisites(true)
                .iter()
                .any(|missing| missing.description.contains("base images"))
        );
    }

    #[test]
    fn cargo_never_changes_the_lock() {
        let checkout = Checkout { root: "/w".into(), cache: BuildCache::with_root("/c") };
        let line = slipway_provision::command::command_line(
            &checkout.cargo_command(&["test", "--workspace"]),
        );
        assert_eq!(line, "cargo test --locked --workspace");
    }
}
