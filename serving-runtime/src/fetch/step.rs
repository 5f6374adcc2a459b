//! `fetch`: the step before a pod serves. It brings the model, verifies it, leaves a record for the server, and tells its digest.

use std::process::ExitCode;

use serde_json::json;

use super::files::Record;
use super::{Options, fetch};
use crate::config::ServeArgs;
use crate::error::{LoadError, Reason};
use crate::run::{Signals, run_to_end};
use crate::termination;

/// Runs `fetch` to its end.
pub fn run(args: ServeArgs) -> ExitCode {
    let of = args.clone();
    run_to_end(&of, life(args))
}

async fn life(args: ServeArgs) -> Result<(), LoadError> {
    let mut signals = Signals::new()?;
    tokio::select! {
        done = tokio::spawn(step(args)) => {
            done.unwrap_or_else(|e| Err(LoadError::transient(Reason::LoadFailed, format!("the download panicked: {e}"))))
        }
        () = signals.any() => Err(LoadError::transient(Reason::DownloadFailed, "told to end while fetching")),
    }
}

async fn step(args: ServeArgs) -> Result<(), LoadError> {
    let options = Options::of(&args);
    let fetched = fetch(&args.model_uri, &args.model_digest, &options).await?;
    let bytes: u64 = fetched.files.iter().map(|file| file.bytes).sum();
    tracing::info!(digest = fetched.digest, bytes, files = fetched.files.len(), "the model is here");
    if let Some(place) = &args.fetched_record {
        let written = Record::of(&args.model_uri, &fetched).map(|record| record.write(place));
        if !matches!(written, Some(Ok(()))) {
            // The server then fetches and verifies by itself.
            tracing::warn!(path = %place.display(), "cannot write the record of what was fetched");
        }
    }
    let told = json!({"digest": fetched.digest, "bytes": bytes, "files": fetched.files.len()});
    termination::write(&args.termination_log, &told);
    Ok(())
}
