//! The command line: help, and error messages in plain words.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::process::Command;

/// Runs the program: returns its status, and its output on standard output and error. Dumps and
/// backtraces are requested by the environment and must not appear.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_slipway-loadgen"))
        .args(args)
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
    let (code, help, _) = run(&["--help"]);
    let purpose = "Sends held-out rows to a model";
    assert!(code == Some(0) && help.contains(purpose) && help.contains("Usage:"), "{help}");
    let (code, version, _) = run(&["--version"]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    let load = |rest: &[&'static str]| [&["--model", "m"], rest].concat();
    let rows = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/digits/heldout.csv");
    for (args, code, causes) in [
        (vec!["--nonsense"], 2, ["'--nonsense'", ""]),
        (
            load(&["--target", "http://localhost", "--rows", "/nowhere.csv"]),
            2,
            ["/nowhere.csv", "No such file"],
        ),
        (load(&["--target", "localhost:80", "--rows", rows]), 2, ["\"localhost:80\"", "http://"]),
        (
            load(&["--target", "http://a", "--rows", rows, "--rate=-1"]),
            2,
            ["--rate must be from 0", ""],
        ),
    ] {
        let (status, _, err) = run(&args);
        let named = err.starts_with("error: ") || code == 2 && err.contains("Usage:");
        assert!(
            status == Some(code) && named && causes.iter().all(|cause| err.contains(cause)),
            "{args:?}: {err}"
        );
    }
}
