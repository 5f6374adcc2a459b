//! Makes callbacks as they come due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use slipway_chassis::telemetry;
use slipway_runtime_queue::queue::{CallbackOutcome, DueCallback, JobQueue as _};
use tokio::sync::watch;

use crate::callback::CallbackSender;
use crate::service::{JobService, OUTAGE_BACKOFF, is_stopping, sleep_or_stop};

/// Between two looks for callbacks that are due.
const IDLE_POLL: Duration = Duration::from_millis(200);
/// Callbacks in flight at once.
const MAX_IN_FLIGHT: usize = 16;

/// Makes callbacks until told to stop. What is under way then is finished or, when that takes
/// longer than an attempt may, made once more by another worker. A slow receiver takes one place of
/// several, and holds up no other.
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
            // There may be more as soon as there is room.
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
        // It is due again when the attempt's lease runs out; the receiver knows it by its
        // idempotency key.
        tracing::warn!(%error, job = due.id, "cannot settle a callback");
    }
}
