//! The command line: help, and error messages in plain words.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

/// Runs the program: returns its status, and its output on standard output and error. Dumps and
/// backtraces are requested by the environment and must not appear.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_slipway-fuzz-seeds"))
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
    assert!(
        code == Some(0)
            && help.contains("the inputs that fuzzing starts from")
            && help.contains("Usage:"),
        "{help}"
    );
    let (code, version, _) = run(&["--version"]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    // A directory cannot be created below a file.
    let below = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml/seeds");
    for (args, code, cause) in [
        (&[][..], 2, "<DIR>"),
        (&["--nonsense"], 2, "'--nonsense'"),
        (&["a", "b"], 2, "'b'"),
        (&[below], 1, "Not a directory"),
    ] {
        let (status, _, err) = run(args);
        assert!(
            status == Some(code) && err.starts_with("error: ") && err.contains(cause),
            "{args:?}: {err}"
        );
    }
}
