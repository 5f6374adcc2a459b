//! `crdgen`: prints the CustomResourceDefinitions as YAML. See `--help`.

use std::io::Write as _;
use std::process::ExitCode;

const HELP: &str = "\
Prints the CustomResourceDefinitions of Slipway as YAML, as they are committed and shipped (`make crds` writes them to their files).

Usage: crdgen [OPTIONS]

Options:
  -h, --help     Print help
  -V, --version  Print version
";

fn main() -> ExitCode {
    // Parsed by hand: every user of the API types compiles the dependencies of this crate, so a
    // crate for command lines is not worth its cost.
    let output = match std::env::args_os().nth(1) {
        None => render_crds(),
        Some(word) if word == "-h" || word == "--help" => Ok(HELP.to_owned()),
        Some(word) if word == "-V" || word == "--version" => {
            Ok(format!("crdgen {}\n", env!("CARGO_PKG_VERSION")))
        }
        Some(word) => {
            eprintln!(
                "error: unexpected argument '{}'\n\nFor more information, try '--help'.",
                word.display()
            );
            return ExitCode::from(2);
        }
    };
    let printed = output.and_then(|text| {
        let written = std::io::stdout().write_all(text.as_bytes());
        written.map_err(|error| format!("cannot write to standard output: {error}"))
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn render_crds() -> Result<String, String> {
    let texts =
        slipway_crds::all_crds().iter().map(slipway_crds::to_yaml).collect::<Result<Vec<_>, _>>();
    texts
        .map(|texts| texts.concat())
        .map_err(|error| format!("a definition cannot be written as YAML: {error}"))
}
