//! The command line: help, and error messages in plain words.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

/// Runs the program: returns its status, and its output on standard output and error. Dumps and
/// backtraces are requested by the environment and must not appear.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_slipway-bench"))
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
    assert!(code == Some(0) && help.contains("beside others") && help.contains("Usage:"), "{help}");
    let (code, version, _) = run(&["--version"]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (args, code, cause) in [
        (&["--nonsense"][..], 2, "'--nonsense'"),
        (&[], 2, "Usage:"),
        (&["runtime", "--seconds=-1"], 2, "--seconds"),
        (&["runtime", "--seconds=NaN"], 2, "from 0.01"),
        (&["runtime", "--only", "slipwy"], 2, "slipwy"),
        (&["gateway", "--dir", file], 1, "Cargo.toml/logs: Not a directory"),
        (&["report", "--dir", "/nowhere"], 1, "no results in /nowhere"),
    ] {
        let (status, _, err) = run(args);
        assert!(status == Some(code) && err.contains(cause), "{args:?}: {err}");
    }
}
