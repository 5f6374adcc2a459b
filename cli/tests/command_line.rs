//! The command line: help, and error messages in plain words.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

/// Runs the program: returns its status, and its output on standard output and error. Dumps and
/// backtraces are requested by the environment and must not appear.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_kubectl-slipway"))
        .args(args)
        .env_remove("ORT_DYLIB_PATH")
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
            && help.contains("Ships machine-learning models safely")
            && help.contains("Usage:"),
        "{help}"
    );
    let (code, version, _) = run(&["--version"]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/../serving-runtime/tests/models/affine.onnx");
    let here = env!("CARGO_MANIFEST_DIR");
    for (args, code, cause) in [
        (&["--nonsense"][..], 2, "'--nonsense'"),
        (&["baseline", "--model", model], 2, "--data"),
        (&["baseline", "--model", "/nowhere/m.onnx", "--data", "d.csv"], 1, "/nowhere/m.onnx"),
        (&["baseline", "--model", here, "--data", "d.csv"], 1, "model.onnx"),
        (
            &["baseline", "--model", model, "--data", "d.csv", "--onnxruntime", "/nowhere.so"],
            1,
            "/nowhere.so",
        ),
        (
            &["baseline", "check", "--baseline", "/nowhere.json", "--data", "d.csv"],
            1,
            "/nowhere.json: No such file",
        ),
        (&["baseline", "check", "--baseline", here, "--data", "d.csv"], 1, "Is a directory"),
        (&["baseline", "check", "--baseline", model, "--data", "d.csv"], 1, "affine.onnx: "),
    ] {
        let (status, _, err) = run(args);
        assert!(
            status == Some(code) && err.starts_with("error: ") && err.contains(cause),
            "{args:?}: {err}"
        );
    }
}
