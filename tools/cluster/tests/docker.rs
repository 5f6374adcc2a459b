//! Tests building images with docker without an engine: a program in place of docker records its
//! arguments and examines the context.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

const DOCKER: &str = r#"#!/bin/sh
echo "$*" >>"$CALLS"
[ "$FAIL" != "$1" ] || { echo "no space left on device" >&2; exit 1; }
for last; do :; done
if [ "$last" = - ]; then cat >>"$CALLS"; else ls "$last" >>"$CALLS"; fi
"#;

fn images(dir: &Path, fail: &str, names: &[&str]) -> (Output, String) {
    let docker = dir.join("docker");
    fs::write(&docker, DOCKER).unwrap();
    fs::set_permissions(&docker, fs::Permissions::from_mode(0o755)).unwrap();
    let calls = dir.join("calls");
    let _ = fs::remove_file(&calls);
    let path = format!("{}:{}", dir.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_slipway-e2e"));
    command.args(["images", "--docker", "--no-cargo"]).args(names);
    let output = command.env("PATH", path).env("CALLS", &calls).env("FAIL", fail).output().unwrap();
    (output, fs::read_to_string(calls).unwrap_or_default())
}

/// A single test, because all contexts are created in one folder of the checkout.
#[test]
fn docker_builds_from_the_same_dockerfiles_and_contexts_and_its_complaints_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let (output, calls) = images(dir.path(), "", &["slipway-model-store", "slipway-redis"]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<&str> = calls.lines().collect();
    assert_eq!(lines[0], "build --quiet --tag slipway-base:redis -");
    assert!(lines[1].starts_with("FROM ") && lines[2].contains("redis-server"), "{calls}");
    assert!(
        lines[3].contains(
            "--tag docker.io/slipway/slipway-redis:dev --build-arg BASE=slipway-base:redis"
        ),
        "{calls}"
    );
    let store = "build --quiet --tag docker.io/slipway/slipway-model-store:dev --build-arg BASE=busybox:1.37 --file ";
    assert!(lines[4].starts_with(store) && lines[4].contains("/examples/Dockerfile "), "{calls}");
    assert_eq!(lines[5..], ["bad", "digits", "slow.onnx"]);

    for name in ["slipway-model-store", "slipway-redis"] {
        let (output, _) = images(dir.path(), "build", &[name]);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(
            !output.status.success() && message.contains("no space left on device"),
            "{message}"
        );
    }
}
