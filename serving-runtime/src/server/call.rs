//! One inference request, counted exactly once however it ends.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use slipway_runtime_predict::metrics::{CLIENT_CLOSED_REQUEST, RuntimeMetrics};
use slipway_runtime_predict::models::LoadedModel;

/// What is known of a request while it is answered; shared with whoever answers it.
#[derive(Debug)]
pub(super) struct InferCall {
    started_at: Instant,
    limit: Duration,
    model: OnceLock<Arc<LoadedModel>>,
    /// The status of our own refusal, in terms of HTTP.
    refusal_code: OnceLock<u16>,
}

impl InferCall {
    pub(super) fn begin(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            started_at: Instant::now(),
            limit,
            model: OnceLock::new(),
            refusal_code: OnceLock::new(),
        })
    }

    /// When it came.
    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// The time that it may take.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Tells which model it is for, whose statistics it then counts in.
    pub(super) fn set_model(&self, model: &Arc<LoadedModel>) {
        let _ = self.model.set(Arc::clone(model));
    }

    /// Notes why it was refused.
    pub(super) fn record_refusal(&self, code: u16) {
        let _ = self.refusal_code.set(code);
    }

    /// Why it was refused, if it was by us.
    pub(super) fn refusal_code(&self) -> Option<u16> {
        self.refusal_code.get().copied()
    }
}

/// Counts a request when it is dropped: hyper drops the future of an answer when the client leaves.
pub(super) struct RequestGuard<'a> {
    metrics: &'a RuntimeMetrics,
    call: Arc<InferCall>,
    code: u16,
}

impl<'a> RequestGuard<'a> {
    pub(super) fn begin(metrics: &'a RuntimeMetrics, call: &Arc<InferCall>) -> Self {
        metrics.start_request();
        Self { metrics, call: Arc::clone(call), code: CLIENT_CLOSED_REQUEST }
    }

    /// The answer is there.
    pub(super) fn finish(mut self, code: u16) {
        self.code = code;
    }
}

impl Drop for RequestGuard<'_> {
    fn drop(&mut self) {
        let took = self.call.started_at.elapsed();
        self.metrics.finish_request(self.code, took);
        if let Some(model) = self.call.model.get() {
            model.stats.record_request(self.code == 200, took);
        }
    }
}
