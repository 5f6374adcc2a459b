//! Makes callbacks as they come due.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::sync::watch;

use super::Caller;
use crate::jobs::queue::{Called, Due, Queue as _};
use crate::jobs::worker::DOWN;
use crate::jobs::{Jobs, pause, stopping};
use crate::server::App;

/// Between two looks for callbacks that are due.
const IDLE: Duration = Duration::from_millis(200);
/// Callbacks in flight at once.
const CALLS: usize = 16;

/// Makes callbacks until told to stop. What is under way then is finished or, when that takes longer than an attempt may, made once more by
/// another worker. A slow receiver takes one place of several, and holds up no other.
pub async fn call_back(app: Arc<App>, jobs: Arc<Jobs>, caller: Caller, stop: watch::Receiver<bool>) {
    let (mut flying, mut failures) = (FuturesUnordered::new(), 0);
    while !stopping(&stop) {
        let free = CALLS - flying.len();
        let due = if free > 0 { jobs.queue.callbacks(free, caller.lease()).await } else { Ok(Vec::new()) };
        let wait = match due {
            Ok(due) => {
                failures = 0;
                flying.extend(due.into_iter().map(|due| call(&app, &jobs, &caller, due)));
                IDLE
            }
            Err(error) => {
                failures += 1;
                tracing::debug!(%error, "no callbacks");
                DOWN.jittered(failures)
            }
        };
        tokio::select! {
            () = pause(&stop, wait) => {}
            // There may be more as soon as there is room.
            Some(()) = flying.next(), if failures == 0 && !flying.is_empty() => {}
        }
    }
    while flying.next().await.is_some() {}
}

async fn call(app: &App, jobs: &Jobs, caller: &Caller, due: Due) {
    let begun = Instant::now();
    let span = || slipway_telemetry::span!("callback", otel.kind = "client", job = due.id);
    let span = || slipway_telemetry::span_with_parent(span(), due.view.text("traceparent"));
    let called = slipway_telemetry::run_in_span(span, caller.call(&due)).await;
    let (outcome, note) = match &called {
        Called::Delivered => ("delivered", ""),
        Called::Retry(_, note) => ("retried", note.as_str()),
        Called::Dead(note) => ("dead", note.as_str()),
    };
    app.metrics.jobs.called(outcome, begun.elapsed());
    if outcome != "delivered" {
        tracing::warn!(job = due.id, outcome, note, "callback");
    }
    if let Err(error) = jobs.queue.called(&due, &called).await {
        // It is due again when the attempt's lease runs out; the receiver knows it by its idempotency key.
        tracing::warn!(%error, job = due.id, "cannot settle a callback");
    }
}
