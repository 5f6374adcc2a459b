//! One inference request, counted exactly once however it ends.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use slipway_runtime_predict::metrics::{CLIENT_CLOSED_REQUEST, RuntimeMetrics};
use slipway_runtime_predict::models::LoadedModel;

/// The state of a request while it is answered; shared with the code that answers it.
#[derive(Debug)]
pub(super) struct InferCall {
    started_at: Instant,
    limit: Duration,
    model: OnceLock<Arc<LoadedModel>>,
    /// The HTTP status of an error of this server.
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

    /// The time when the request arrived.
    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// The time limit of the request.
    pub(super) fn limit(&self) -> Duration {
        self.limit
    }

    /// Sets the model, in whose statistics the request is counted.
    pub(super) fn set_model(&self, model: &Arc<LoadedModel>) {
        let _ = self.model.set(Arc::clone(model));
    }

    /// Records why the request was rejected.
    pub(super) fn record_refusal(&self, code: u16) {
        let _ = self.refusal_code.set(code);
    }

    /// Why this server rejected the request, if it did.
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

    /// Counts the request as answered.
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
