//! `slipway-fuzz-seeds DIR`: writes the seeds of every target to `DIR/<target>/`, for libFuzzer.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const HELP: &str = "\
Writes the inputs that fuzzing starts from to DIR/<target>/, for libFuzzer (`make fuzz` does that).

Usage: slipway-fuzz-seeds [OPTIONS] <DIR>

Arguments:
  <DIR>  Directory of the seeds; it is made when it is not there

Options:
  -h, --help     Print help
  -V, --version  Print version
";

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    // A closed output is no error, as in clap.
    let tell = |text: &str| {
        let _ = std::io::stdout().write_all(text.as_bytes());
        ExitCode::SUCCESS
    };
    let wrong = match (words.next(), words.next()) {
        (Some(word), _) if word == "-h" || word == "--help" => return tell(HELP),
        (Some(word), _) if word == "-V" || word == "--version" => {
            return tell(concat!("slipway-fuzz-seeds ", env!("CARGO_PKG_VERSION"), "\n"));
        }
        (Some(word), _) if word.as_encoded_bytes().starts_with(b"-") => {
            format!("unexpected argument '{}'", word.display())
        }
        (Some(dir), None) => return write(&PathBuf::from(dir)),
        (Some(_), Some(word)) => format!("unexpected argument '{}'", word.display()),
        (None, _) => "the argument <DIR> is missing".to_owned(),
    };
    eprintln!("error: {wrong}\n\nFor more information, try '--help'.");
    ExitCode::from(2)
}

fn write(dir: &Path) -> ExitCode {
    let cannot = |what: &str, path: &Path, error: std::io::Error| {
        format!("cannot {what} {}: {error}", path.display())
    };
    let written = slipway_fuzz::TARGETS.iter().try_for_each(|(target, _)| {
        let dir = dir.join(target);
        std::fs::create_dir_all(&dir).map_err(|error| cannot("make", &dir, error))?;
        slipway_fuzz::seeds::of(target).into_iter().enumerate().try_for_each(|(number, seed)| {
            let file = dir.join(format!("seed-{number}"));
            std::fs::write(&file, seed).map_err(|error| cannot("write", &file, error))
        })
    });
    match written {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
