//! The command line as a user sees it: help, and readable error messages.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

/// Runs the program; returns its exit status, standard output and standard error. The environment
/// requests dumps and backtraces, which must not appear.
fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_slipway-gateway"))
        .args(args)
        .env("KUBECONFIG", "/nowhere/kubeconfig")
        .env_remove("KUBERNETES_SERVICE_HOST")
        .env("RUST_BACKTRACE", "1")
        .output()
        .unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let dump = ["stack backtrace", "panicked at", "Error {", "Os {"]
        .into_iter()
        .find(|dump| err.contains(dump) || out.contains(dump));
    assert_eq!(dump, None, "{args:?}: {out}{err}");
    (output.status.code(), out, err)
}

#[test]
fn help_and_version_are_told() {
    let (code, help, _) = run(&["--help"]);
    assert!(
        code == Some(0) && help.contains("The data plane of Slipway") && help.contains("Usage:"),
        "{help}"
    );
    let (code, version, _) = run(&["--version"]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let free = ["--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    for (args, code, causes) in [
        (&["--nonsense"][..], 2, ["'--nonsense'", ""]),
        (&["--listen", "8080"], 2, ["'8080' for '--listen", "socket address"]),
        (&["--max-connections", "18446744073709551615"], 2, ["--max-connections", "4294967295"]),
        (
            &["--listen", &address],
            1,
            [&format!("cannot listen on {address}"), "Address already in use"],
        ),
        (&free, 1, ["cannot infer how to reach the API server", "/nowhere/kubeconfig"]),
        (
            &[&free[..], &["--log", "a=b=c"]].concat(),
            1,
            ["--log (SLIPWAY_LOG) is no filter", "/nowhere/kubeconfig"],
        ),
    ] {
        // Errors after the log is set up are logged, to standard output.
        let (status, out, err) = run(args);
        let text = if code == 1 { out } else { err };
        assert!(
            status == Some(code) && causes.iter().all(|cause| text.contains(cause)),
            "{args:?}: {text}"
        );
    }
}
