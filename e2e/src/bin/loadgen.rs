//! `slipway-loadgen`: see `--help`.

// Not part of the library: the load generator stands for a client, and shares no code with what it
// measures.
#[path = "../loadgen/mod.rs"]
mod loadgen;

use std::process::ExitCode;

use clap::Parser;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match loadgen::run_loadgen(loadgen::LoadgenOptions::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Not 1, which says that a request failed.
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
