//! Scripts and targets of `make`, run with fake programs.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A folder for PATH: a shell and the programs that the script calls, without a compiler.
fn path_without_compiler(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    for program in ["bash", "dirname", "env"] {
        let found = std::env::split_paths(&std::env::var_os("PATH").unwrap())
            .map(|dir| dir.join(program))
            .find(|file| file.exists());
        std::os::unix::fs::symlink(found.unwrap(), dir.join(program)).unwrap();
    }
    for (program, text) in [
        ("apt-get", "echo \"apt-get $*\" >&2"),
        ("id", "echo 0"),
        // The script ends with this call, so no program is built.
        ("cargo", "exit 9"),
    ] {
        fs::write(dir.join(program), format!("#!{}/bash\n{text}\n", dir.display())).unwrap();
        fs::set_permissions(dir.join(program), fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

fn run_without_compiler(target: &str) -> Output {
    let path = path_without_compiler(&format!("no-compiler-{target}"));
    let mut script = Command::new(root().join("scripts/xtask"));
    script.arg(target).env("PATH", path).output().unwrap()
}

#[test]
fn only_setup_demo_and_test_install_a_compiler() {
    for target in ["setup", "demo", "test"] {
        let out = run_without_compiler(target);
        assert_eq!(out.status.code(), Some(9), "{out:?}");
        let installed = String::from_utf8(out.stderr).unwrap();
        assert!(installed.contains("install -y") && installed.contains("build-essential"));
        assert!(String::from_utf8(out.stdout).unwrap().starts_with("installing by apt-get"));
    }
    for target in ["check", "e2e", "up", "images", "prefetch"] {
        let out = run_without_compiler(target);
        assert_eq!(out.status.code(), Some(1), "{out:?}");
        let told = String::from_utf8(out.stderr).unwrap();
        assert!(told.contains("make setup") && !told.contains("apt-get"), "{told}");
    }
}

#[test]
fn help_lists_every_target() {
    let makefile = fs::read_to_string(root().join("Makefile")).unwrap();
    let targets: Vec<_> = makefile.lines().filter_map(|it| it.strip_prefix(".PHONY: ")).collect();
    assert!(targets.len() >= 20, "{targets:?}");
    let help = Command::new("make").arg("help").current_dir(root()).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    for target in targets {
        assert!(help.contains(&format!("  make {target} ")), "make help does not list {target}");
    }
}
