//! The command line: help, and error messages in plain words.

use super::support::{model, run_program as run};

#[test]
fn help_and_version_are_told_before_anything_else() {
    // Telemetry must not start yet: it would report the invalid endpoint.
    let endpoint = [("OTEL_EXPORTER_OTLP_ENDPOINT", "no url"), ("RUST_LOG", "a=b=c")];
    for args in [&["--help"][..], &["serve", "--help"], &["worker", "--help"]] {
        let (code, help, err) = run(args, &endpoint);
        assert!(
            code == Some(0) && help.contains("Usage: slipway-runtime") && err.is_empty(),
            "{help}{err}"
        );
        assert!(!help.contains("no url") && !help.contains("RUST_LOG"), "{help}");
    }
    assert!(run(&["--help"], &endpoint).1.starts_with("The model server of Slipway"));
    let (code, version, _) = run(&["--version"], &endpoint);
    assert!(
        code == Some(0) && version == concat!("slipway-runtime ", env!("CARGO_PKG_VERSION"), "\n"),
        "{version}"
    );
}

#[test]
fn mistakes_in_the_arguments_are_named() {
    for (args, env, cause) in [
        (&["--nonsense"][..], &[][..], "'--nonsense'"),
        (&[], &[], "Usage:"),
        (&["serve"], &[], "--model-uri"),
        (
            &["serve", "--model-uri", "/m"],
            &[("SLIPWAY_QUEUE_MAX_JOBS", "many")],
            "'many' for '--queue-max-jobs",
        ),
        (
            &["serve", "--model-uri", "/m", "--request-timeout-seconds", "18446744073709551615"],
            &[],
            "604800",
        ),
    ] {
        let (status, out, err) = run(args, env);
        assert!(status == Some(2) && out.is_empty() && err.contains(cause), "{args:?}: {out}{err}");
    }
}

/// From here on there is a log on standard output.
#[test]
fn what_keeps_the_server_from_starting_is_in_its_log() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let affine = model("affine").display().to_string();
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    for (args, env, cause) in [
        (&["/nowhere.onnx"][..], &[][..], "/nowhere.onnx"),
        (&[text], &[], "InvalidModel"),
        (&[env!("CARGO_MANIFEST_DIR")], &[], "model.onnx"),
        (&["ftp://host/model"], &[], "a scheme that we do not read"),
        (&[&affine, "--listen", &address], &[], "cannot listen on"),
        (&[&affine, "--onnxruntime", "/nowhere.so"], &[], "no ONNX Runtime at /nowhere.so"),
        (&[&affine, "--onnxruntime", text], &[], "ONNX Runtime does not start"),
        (&["/nowhere.onnx"], &[("RUST_LOG", "a=b=c")], "RUST_LOG is no filter"),
        (
            &["/nowhere.onnx"],
            &[("OTEL_EXPORTER_OTLP_ENDPOINT", "no url")],
            "OTEL_EXPORTER_OTLP_ENDPOINT",
        ),
    ] {
        let ports = ["serve", "--admin-listen", "127.0.0.1:0", "--model-uri"];
        let listen =
            if args.contains(&"--listen") { &[][..] } else { &["--listen", "127.0.0.1:0"] };
        let (status, out, _) = run(&[&ports, args, listen].concat(), env);
        assert!(
            status == Some(1) && out.contains("cannot serve") && out.contains(cause),
            "{args:?}: {out}"
        );
    }
}
