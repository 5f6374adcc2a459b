//! The command line: help, and error messages in plain words.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

/// Runs the program: returns its status, and its output on standard output and error. Dumps and
/// backtraces are requested by the environment and must not appear.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_slipway-conformance"))
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
            && help.contains("Checks a server of the Open Inference Protocol v2")
            && help.contains("Usage:"),
        "{help}"
    );
    let (code, version, _) = run(&["--version"]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    // The port is released at once, so no server listens there.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let free = format!("http://{free}");
    for (args, code, cause) in [
        (&["--nonsense"][..], 2, "'--nonsense'"),
        (&["--model", "m"], 2, "--url"),
        (&["--model", "m", "--url", "localhost:8080"], 2, "want http://host:port"),
        (&["--model", "m", "--url", &free, "--report", "report.txt"], 2, ".json or .md"),
        (&["--model", "m", "--url", &free, "--timeout-seconds", "0"], 2, "--timeout-seconds"),
        (
            &["--model", "m", "--url", &free, "--report", "/nowhere/report.md"],
            1,
            "/nowhere/report.md: No such file",
        ),
    ] {
        let (status, _, err) = run(args);
        assert!(
            status == Some(code) && err.starts_with("error: ") && err.contains(cause),
            "{args:?}: {err}"
        );
    }
}

#[test]
fn a_server_that_is_not_there_fails_its_checks() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, out, _) = run(&["--model", "m", "--url", &format!("http://{free}")]);
    assert!(code == Some(1) && out.contains("Connection refused"), "{out}");
}
