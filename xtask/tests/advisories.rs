//! The output of `scripts/deny --advisories`, with a fake cargo-deny.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

/// Runs the script with this program in place of cargo-deny.
fn advisories(name: &str, program: &str) -> Output {
    let script = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/deny"));
    let text = fs::read_to_string(script).unwrap();
    let version = text.lines().find_map(|line| line.strip_prefix("version=")).unwrap();
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let tool = cache.join(format!("cargo-deny-{version}/bin/cargo-deny"));
    fs::create_dir_all(tool.parent().unwrap()).unwrap();
    fs::write(&tool, format!("#!/bin/sh\n{program}\n")).unwrap();
    fs::set_permissions(&tool, fs::Permissions::from_mode(0o755)).unwrap();
    Command::new(script).arg("--advisories").env("SLIPWAY_CACHE", &cache).output().unwrap()
}

#[test]
fn a_database_that_cannot_be_reached_is_no_clean_bill() {
    let out =
        advisories("unreachable", r#"case "$*" in *"fetch db") exit 1;; *) echo looked;; esac"#);
    assert!(!out.status.success() && out.stdout.is_empty());
    assert!(
        String::from_utf8(out.stderr)
            .unwrap()
            .contains("cannot be reached: no dependency was looked at")
    );
}

#[test]
fn what_is_found_fails_and_what_is_clean_passes() {
    let found = advisories("found", r#"case "$*" in *advisories) exit 4;; esac"#);
    assert_eq!(found.status.code(), Some(4));
    assert!(advisories("clean", "exit 0").status.success());
}
