//! The subcommand `fetch`, the step before a pod serves: it fetches the model, verifies it, writes
//! a record for the server, and reports the digest.

use std::process::ExitCode;

use slipway_contracts::termination::FetchReport;
use slipway_runtime_engine::error::{LoadError, LoadErrorReason};
use slipway_runtime_engine::fetch::{FetchRecord, fetch_model};

use super::{listen_for_shutdown, run_to_end, termination};
use crate::config::ServeArgs;

/// Runs `fetch` to its end.
pub fn run_fetch(args: ServeArgs) -> ExitCode {
    let of = args.clone();
    run_to_end(&of, fetch_until_signal(args))
}

async fn fetch_until_signal(args: ServeArgs) -> Result<(), LoadError> {
    let mut signals = listen_for_shutdown()?;
    tokio::select! {
        done = tokio::spawn(fetch_and_record(args)) => {
            done.unwrap_or_else(|e| Err(LoadError::transient(LoadErrorReason::LoadFailed, format!("the download panicked: {e}"))))
        }
        () = signals.recv() => Err(LoadError::transient(LoadErrorReason::DownloadFailed, "told to end while fetching")),
    }
}

async fn fetch_and_record(args: ServeArgs) -> Result<(), LoadError> {
    let fetched = fetch_model(&args.model_uri, &args.model_digest, &args.fetch_options()).await?;
    let bytes: u64 = fetched.files.iter().map(|file| file.bytes).sum();
    tracing::info!(
        digest = fetched.digest,
        bytes,
        files = fetched.files.len(),
        "the model is here"
    );
    if let Some(place) = &args.fetched_record {
        let written =
            FetchRecord::from_fetched(&args.model_uri, &fetched).map(|record| record.write(place));
        if !matches!(written, Some(Ok(()))) {
            // Without the record the server fetches and verifies the model itself.
            tracing::warn!(path = %place.display(), "cannot write the record of what was fetched");
        }
    }
    let report = FetchReport { bytes, files: fetched.files.len(), digest: fetched.digest };
    termination::write_message(&args.termination_log, &report);
    Ok(())
}
