//! The command line as a user sees it: help, and readable error messages.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::process::Command;

/// Runs the program; returns its exit status, standard output and standard error. The environment
/// requests dumps and backtraces, which must not appear.
fn run(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_slipway-operator"))
        .args(args)
        .env_remove("RUST_LOG")
        .env_remove("KUBERNETES_SERVICE_HOST")
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
    let (code, help, _) = run(&["--help"], &[]);
    assert!(
        code == Some(0)
            && help.contains("Ships machine-learning models")
            && help.contains("Usage:"),
        "{help}"
    );
    let (code, version, _) = run(&["--version"], &[]);
    assert!(code == Some(0) && version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[test]
fn mistakes_are_named() {
    let nowhere = ("KUBECONFIG", "/nowhere/kubeconfig");
    for (args, env, code, cause) in [
        (&["--nonsense"][..], nowhere, 2, "'--nonsense'"),
        (&[], ("SLIPWAY_GATEWAY_UPDATE", "Sometimes"), 2, "'Sometimes' for '--gateway-update"),
        (&[], nowhere, 1, "/nowhere/kubeconfig"),
        (&["--log-format", "text"], nowhere, 1, "no access to a cluster"),
    ] {
        let (status, _, err) = run(args, &[env]);
        assert!(status == Some(code) && err.contains(cause), "{args:?}: {err}");
    }
}

#[test]
fn what_is_wrong_before_the_first_request_is_named() {
    let kubeconfig = concat!(env!("CARGO_TARGET_TMPDIR"), "/command-line-kubeconfig");
    let text = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],\n \
                clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1'}}], users: [{name: u, user: {}}]}";
    std::fs::write(kubeconfig, text).unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let env = [("KUBECONFIG", kubeconfig), ("RUST_LOG", "info=not=a=filter")];
    for (args, cause) in [
        (
            &["--admin-listen", &address][..],
            format!("cannot listen on {address}: Address already in use"),
        ),
        (&["--prometheus-url", "not a url"], "--prometheus-url not a url: ".to_owned()),
        (
            &["--gateway-settings-file", "/nowhere/t.yaml"],
            "--gateway-settings-file /nowhere/t.yaml: ".to_owned(),
        ),
        (
            &["--network-policy-data-from", "[{}]"],
            "--network-policy-data-from (networkPolicies.dataFrom of the chart): item 0 needs"
                .to_owned(),
        ),
    ] {
        let (status, _, err) = run(args, &env);
        assert!(status == Some(1) && err.contains(&cause), "{args:?}: {err}");
        assert!(err.contains("RUST_LOG is no filter"), "{err}");
    }
}
