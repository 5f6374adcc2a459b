//! Sends callbacks when they are due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use slipway_chassis::telemetry;
use slipway_runtime_queue::queue::{CallbackOutcome, DueCallback, JobQueue as _};
use tokio::sync::watch;

use crate::callback::CallbackSender;
use crate::service::{JobService, OUTAGE_BACKOFF, is_stopping, sleep_or_stop};

/// Interval between queries for due callbacks.
const IDLE_POLL: Duration = Duration::from_millis(200);
/// Largest number of concurrent callbacks.
const MAX_IN_FLIGHT: usize = 16;

/// Sends callbacks until `stop` is set. Callbacks in progress at that moment are finished or, if
/// they take longer than an attempt may, sent once more by another worker. A slow receiver occupies
/// only one of the concurrent callbacks, so it does not delay the others.
pub async fn send_due_callbacks(
    jobs: Arc<JobService>,
    caller: CallbackSender,
    stop: watch::Receiver<bool>,
) {
    let (mut flying, mut failures) = (FuturesUnordered::new(), 0);
    while !is_stopping(&stop) {
        let free = MAX_IN_FLIGHT - flying.len();
        let due = if free > 0 {
            jobs.queue.claim_callbacks(free, caller.attempt_lease()).await
        } else {
            Ok(Vec::new())
        };
        let wait = match due {
            Ok(due) => {
                failures = 0;
                flying.extend(due.into_iter().map(|due| send_callback(&jobs, &caller, due)));
                IDLE_POLL
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "no callbacks");
                OUTAGE_BACKOFF.random_delay(failures)
            }
        };
        tokio::select! {
            () = sleep_or_stop(&stop, wait) => {}
            // A finished callback makes room for more due ones.
            Some(()) = flying.next(), if failures == 0 && !flying.is_empty() => {}
        }
    }
    while flying.next().await.is_some() {}
}

async fn send_callback(jobs: &JobService, caller: &CallbackSender, due: DueCallback) {
    let begun = Instant::now();
    let span = || slipway_chassis::span!("callback", otel.kind = "client", job = due.id);
    let span = || telemetry::span_with_parent(span(), due.job.text("traceparent"));
    let called = telemetry::run_in_span(span, caller.send(&due)).await;
    let (outcome, note) = match &called {
        CallbackOutcome::Delivered => ("delivered", ""),
        CallbackOutcome::Retry(_, note) => ("retried", note.as_str()),
        CallbackOutcome::Dead(note) => ("dead", note.as_str()),
    };
    jobs.metrics.record_callback(outcome, begun.elapsed());
    if outcome != "delivered" {
        tracing::warn!(job = due.id, outcome, note, "callback");
    }
    if let Err(error) = jobs.queue.record_callback(&due, &called).await {
        // The callback is due again when the attempt's lease expires; the receiver recognises the
        // repetition by its idempotency key.
        tracing::warn!(%error, job = due.id, "cannot settle a callback");
    }
}
