//! `slipway-loadgen`: sends held-out rows at a fixed rate in an open loop, checks every answer, and
//! accounts for every request. See `--help`.
//!
//! It acts as a client, and shares no code with the programs that it measures.

mod account;
#[cfg(test)]
mod account_tests;
mod api;
mod callbacks;
mod client;
mod feedback;
mod generator;
mod histogram;
mod protocol;
mod reason;
mod rows;
mod schedule;
mod summary;
mod worker;

use std::process::ExitCode;

use clap::Parser;
use generator::LoadgenOptions;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match generator::run_loadgen(LoadgenOptions::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            // Not 1, which means that a request failed.
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}
