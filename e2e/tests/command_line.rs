//! The command line: help, and error messages in plain words.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

const DEMO: &str = env!("CARGO_BIN_EXE_slipway-demo");
/// A path that no cluster has or may use.
const NOWHERE: &str = "/nowhere/kubeconfig";

/// Runs the program: returns its status, and its output on standard output and error. Dumps and
/// backtraces are requested by the environment and must not appear.
fn run(program: &str, args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(program)
        .args(args)
        .env_remove("SLIPWAY_E2E_NAME")
        .env_remove("CONTEXT")
        .envs(env.iter().copied())
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let dump = ["stack backtrace", "panicked at", "Error {", "Os {"]
        .into_iter()
        .find(|dump| err.contains(dump));
    assert_eq!(dump, None, "{args:?}: {out}{err}");
    (output.status.code(), out, err)
}

#[test]
fn help_and_version_are_told() {
    // Neither command looks for a cluster.
    let (code, help, _) = run(DEMO, &["--help"], &[("CONTEXT", "nowhere")]);
    let purpose = "Installs Slipway by helm";
    assert!(code == Some(0) && help.contains(purpose) && help.contains("Usage:"), "{help}");
    let (code, version, _) = run(DEMO, &["--version"], &[("CONTEXT", "nowhere")]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    let foreign = [("CONTEXT", "nowhere"), ("KUBECONFIG", NOWHERE)];
    for (program, args, env, code, causes) in [
        (DEMO, vec!["--nonsense"], &[][..], 2, ["'--nonsense'", ""]),
        (
            DEMO,
            vec!["run"],
            &[("SLIPWAY_E2E_NAME", "nowhere")],
            1,
            ["`nowhere` is not up", "slipway-e2e up"],
        ),
        (DEMO, vec!["install"], &foreign, 1, ["CONTEXT=nowhere", NOWHERE]),
    ] {
        let (status, _, err) = run(program, &args, env);
        let named = err.starts_with("error: ") || code == 2 && err.contains("Usage:");
        assert!(
            status == Some(code) && named && causes.iter().all(|cause| err.contains(cause)),
            "{args:?}: {err}"
        );
    }
}
