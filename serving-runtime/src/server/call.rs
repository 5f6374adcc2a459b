//! One inference request, counted exactly once however it ends.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::metrics::{CLIENT_LEFT, Metrics};
use crate::models::Model;

/// What is known of a request while it is answered; shared with whoever answers it.
#[derive(Debug)]
pub(super) struct Call {
    begun: Instant,
    limit: Duration,
    model: OnceLock<Arc<Model>>,
    /// The status of our own refusal, in terms of HTTP.
    refused: OnceLock<u16>,
}

impl Call {
    pub(super) fn begin(limit: Duration) -> Arc<Self> {
        Arc::new(Self { begun: Instant::now(), limit, model: OnceLock::new(), refused: OnceLock::new() })
    }

    /// When it came.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// The time that it may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Tells which model it is for, whose statistics it then counts in.
    pub(super) fn found(&self, model: &Arc<Model>) {
        let _ = self.model.set(Arc::clone(model));
    }

    /// Notes why it was refused.
    pub(super) fn refuse(&self, code: u16) {
        let _ = self.refused.set(code);
    }

    /// Why it was refused, if it was by us.
    pub(super) fn refused(&self) -> Option<u16> {
        self.refused.get().copied()
    }
}

/// Counts a request when it is dropped: hyper drops the future of an answer when the client leaves.
pub(super) struct Counting<'a> {
    metrics: &'a Metrics,
    call: Arc<Call>,
    code: u16,
}

impl<'a> Counting<'a> {
    pub(super) fn begin(metrics: &'a Metrics, call: &Arc<Call>) -> Self {
        metrics.begin();
        Self { metrics, call: Arc::clone(call), code: CLIENT_LEFT }
    }

    /// The answer is there.
    pub(super) fn end(mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        let took = self.call.begun.elapsed();
        self.metrics.end(self.code, took);
        if let Some(model) = self.call.model.get() {
            model.stats.ended(self.code == 200, took);
        }
    }
}
