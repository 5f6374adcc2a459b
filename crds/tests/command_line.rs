//! The command line as users see it: help, and errors in plain words.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

/// Runs the program: returns its status, standard output and standard error. A backtrace is
/// requested through the environment, but must not appear.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen"))
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
            && help.contains("Prints the CustomResourceDefinitions")
            && help.contains("Usage:"),
        "{help}"
    );
    let (code, version, _) = run(&["--version"]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    let (code, _, err) = run(&["--nonsense"]);
    assert!(code == Some(2) && err.contains("'--nonsense'"), "{err}");
}

#[test]
fn nobody_who_reads_is_no_panic() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = Command::new(env!("CARGO_BIN_EXE_crdgen"))
        .stdout(writer)
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.status.code() == Some(1)
            && err.starts_with("error: cannot write")
            && err.lines().count() == 1,
        "{err}"
    );
}
