//! A group of Go programs of another project, built from the modules that one `go.mod` in
//! `e2e/tools` pins.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::cache::{self, BuildCache};
use crate::command;
use crate::error::{ProvisionError, Result};

/// A group of programs that one `go.mod` pins.
#[derive(Debug)]
pub struct GoTool {
    /// Folder below `e2e/tools`.
    pub name: &'static str,
    /// Version of the programs' module.
    pub version: &'static str,
    /// Build tags.
    pub tags: &'static str,
    /// Variables for the linker: `{v}` becomes the version.
    pub variables: &'static [&'static str],
    /// Package, and the name of its program.
    pub programs: &'static [(&'static str, &'static str)],
    /// A file of imports in a module, of which only some lines are compiled. Unused plug-ins take
    /// most of the build time.
    pub plugins: Option<GoPlugins>,
    /// Build time in seconds on two idle cores, with empty Go caches.
    pub cold_seconds: u32,
}

/// A file that imports plug-ins for their side effects, one per line.
#[derive(Debug)]
pub struct GoPlugins {
    /// The module that contains the file.
    pub module: &'static str,
    /// The file in the module.
    pub file: &'static str,
    /// Common prefix of the imported packages.
    pub package: &'static str,
    /// The plug-ins that are kept: the last part of their packages' names.
    pub keep: &'static [&'static str],
}

impl GoTool {
    /// Whether it is built already.
    pub fn is_present(&self, cache: &BuildCache, root: &Path) -> bool {
        self.cache_key(root).is_ok_and(|key| cache.entry_path(self.name, &key).is_dir())
    }

    /// Folder of the programs, built when they are not in the cache yet.
    pub fn ensure_built(&self, cache: &BuildCache, root: &Path) -> Result<PathBuf> {
        let made = cache.get_or_make(self.name, &self.cache_key(root)?, |dir| {
            let (since, names) = (Instant::now(), self.program_names().join(", "));
            eprintln!(
                "building {names} {} (about {})",
                self.version,
                crate::format_minutes(self.cold_seconds.into())
            );
            self.build_into(root, dir)?;
            eprintln!("built {names} in {}", crate::format_minutes(since.elapsed().as_secs()));
            Ok(())
        });
        made.map(|entry| entry.join("bin"))
    }

    /// Folder of the programs, whether they are built or not.
    pub fn bin_dir(&self, cache: &BuildCache, root: &Path) -> Result<PathBuf> {
        Ok(cache.entry_path(self.name, &self.cache_key(root)?).join("bin"))
    }

    /// Fetches the modules, so that a later build need not wait for the network.
    pub fn download_modules(&self, root: &Path) -> Result<()> {
        command::run_command(go_command(&self.module_dir(root)).args(["mod", "download"])).map(drop)
    }

    fn program_names(&self) -> Vec<&'static str> {
        self.programs.iter().map(|(_, program)| *program).collect()
    }

    fn module_dir(&self, root: &Path) -> PathBuf {
        root.join("e2e/tools").join(self.name)
    }

    /// Version and key of the entry in the cache. The version of Go is left out, because it does
    /// not change what the programs do.
    fn cache_key(&self, root: &Path) -> Result<String> {
        let read = |file: &str| {
            let path = self.module_dir(root).join(file);
            fs::read(&path).map_err(ProvisionError::io("read", path))
        };
        let how = format!(
            "1 {} {} {:?} {:?}",
            self.tags,
            self.linker_flags(),
            self.programs,
            self.plugins
        );
        let key = cache::content_key(&[&read("go.mod")?, &read("go.sum")?, how.as_bytes()]);
        Ok(format!("{}-{key}", self.version))
    }

    fn build_into(&self, root: &Path, dir: &Path) -> Result<()> {
        let bin = dir.join("bin");
        fs::create_dir_all(&bin).map_err(ProvisionError::io("create", &bin))?;
        let mut command = self.build_command(root, &bin);
        if let Some(plugins) = &self.plugins {
            command.arg("-modfile").arg(plugins.reduced_module(&self.module_dir(root), dir)?);
        }
        command.args(self.programs.iter().map(|(package, _)| *package));
        command::run_command(&mut command)?;
        for left in ["module", "go.mod", "go.sum"] {
            cache::remove_path(&dir.join(left))?;
        }
        match self.programs.iter().find(|(_, program)| !bin.join(program).is_file()) {
            Some((package, program)) => {
                Err(ProvisionError::Other(format!("{package} built no {program}")))
            }
            None => Ok(()),
        }
    }

    /// The build command without the packages.
    fn build_command(&self, root: &Path, into: &Path) -> Command {
        // One call for a whole group, so that shared packages compile once; a single program may be
        // named differently.
        let output = match self.programs {
            [(_, program)] => into.join(program),
            _ => into.join(""),
        };
        let mut command = go_command(&self.module_dir(root));
        command.args(["build", "-o"]).arg(output).args([
            "-tags",
            self.tags,
            "-ldflags",
            &self.linker_flags(),
        ]);
        command
    }

    fn linker_flags(&self) -> String {
        let variables = self
            .variables
            .iter()
            .map(|variable| format!(" -X {}", variable.replace("{v}", self.version)));
        format!("-s -w{}", variables.collect::<String>())
    }
}

impl GoPlugins {
    /// Copies the module with fewer lines in the file, and writes a `go.mod` that makes the
    /// compiler use the copy; returns the path of that `go.mod`. (Go does not support `-overlay`
    /// for files of its module cache.)
    fn reduced_module(&self, module_dir: &Path, dir: &Path) -> Result<PathBuf> {
        // If it is not in the module cache, Go reports no folder for it.
        command::run_command(go_command(module_dir).args(["mod", "download", self.module]))?;
        let found = command::run_command(go_command(module_dir).args([
            "list",
            "-m",
            "-f",
            "{{.Dir}}",
            self.module,
        ]))?;
        let (copy, modfile) = (dir.join("module"), dir.join("go.mod"));
        command::run_command(
            Command::new("cp").arg("-r").arg("--no-preserve=mode").arg(found.trim()).arg(&copy),
        )?;
        let imports = copy.join(self.file);
        let text = fs::read_to_string(&imports).map_err(ProvisionError::io("read", &imports))?;
        fs::write(&imports, self.reduce_imports(&text)?)
            .map_err(ProvisionError::io("write", &imports))?;
        let pins = fs::read_to_string(module_dir.join("go.mod"))
            .map_err(ProvisionError::io("read", module_dir))?;
        let replace = format!("{pins}\nreplace {} => {}\n", self.module, copy.display());
        fs::write(&modfile, replace).map_err(ProvisionError::io("write", &modfile))?;
        fs::copy(module_dir.join("go.sum"), dir.join("go.sum"))
            .map_err(ProvisionError::io("copy", module_dir))?;
        Ok(modfile)
    }

    fn reduce_imports(&self, text: &str) -> Result<String> {
        let plugin = |line: &str| {
            let package = line.trim().strip_prefix("_ \"")?.strip_suffix('"')?;
            package.strip_prefix(self.package).map(|rest| rest.trim_start_matches('/').to_owned())
        };
        let missing = self
            .keep
            .iter()
            .find(|name| !text.lines().any(|line| plugin(line).is_some_and(|it| it == **name)));
        if let Some(missing) = missing {
            return Err(ProvisionError::Other(format!(
                "{} of {} imports no plug-in {missing}",
                self.file, self.module
            )));
        }
        let kept = |line: &&str| {
            let is_import = line.trim().starts_with("_ \"");
            !is_import || plugin(line).is_some_and(|name| self.keep.contains(&name.as_str()))
        };
        Ok(text.lines().filter(kept).fold(String::new(), |all, line| all + line + "\n"))
    }
}

/// Runs go at a lower priority than the work in the foreground.
fn go_command(module_dir: &Path) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", "10", "go"]).current_dir(module_dir);
    command
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "-trimpath -buildvcs=false -mod=readonly")
        .env("GOWORK", "off");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go_tools::TOOLS;

    #[test]
    fn a_group_builds_into_a_folder_and_a_single_program_to_its_name() {
        let line = |name: &str| {
            let tool = TOOLS.iter().find(|tool| tool.name == name).unwrap();
            command::command_line(&tool.build_command(Path::new("/w"), Path::new("/o")))
        };
        assert!(line("etcd").contains("-o /o/etcd "));
        assert!(line("kubernetes").contains("-o /o/ "));
        assert!(line("kubernetes").contains("version.gitVersion=v1.36.3"));
    }

    #[test]
    fn only_wanted_plugins_are_kept() {
        let plugins = GoPlugins {
            module: "m",
            file: "f.go",
            package: "m/plugin",
            keep: &["errors", "ready"],
        };
        let text = "package plugin\n\nimport (\n\t_ \"m/plugin/errors\"\n\t_ \"m/plugin/route53\"\n\t_ \"m/plugin/ready\"\n\t_ \"other/external\"\n)\n";
        let reduced = plugins.reduce_imports(text).unwrap();
        assert_eq!(
            reduced,
            "package plugin\n\nimport (\n\t_ \"m/plugin/errors\"\n\t_ \"m/plugin/ready\"\n)\n"
        );
        let error =
            GoPlugins { keep: &["gone"], ..plugins }.reduce_imports(text).unwrap_err().to_string();
        assert!(error.contains("gone"), "{error}");
    }
}
