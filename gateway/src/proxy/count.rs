//! Guards that count each request exactly once, whatever becomes of it.

use std::sync::{Arc, atomic::Ordering};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use crate::{
    metrics::{ModelMetrics, Outcome, Reason},
    model::Arm,
};

/// One request to one arm. Dropped before it is closed, its client has left.
#[derive(Debug)]
pub struct ArmCall {
    arm: Arc<Arm>,
    started: Instant,
    open: bool,
    judged: bool,
    cached: bool,
}

impl ArmCall {
    /// Starts a request; `judged` says whether the brake hears of its end.
    pub fn start(arm: &Arc<Arm>, judged: bool) -> Self {
        arm.requests.fetch_add(1, Ordering::Relaxed);
        arm.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { arm: Arc::clone(arm), started: Instant::now(), open: true, judged, cached: false }
    }

    /// The arm.
    pub fn arm(&self) -> &Arc<Arm> {
        &self.arm
    }

    /// Tells whether the answer is a kept one: it says nothing about how fast the revision answers.
    pub fn answered(&mut self, cached: bool) {
        self.cached = cached;
    }

    /// Ends the request.
    pub fn close(&mut self, outcome: Outcome) {
        if self.end(outcome) && self.judged {
            self.arm.judge_outcome(outcome);
        }
    }

    /// Ends the request, and leaves the judgement to the caller.
    pub fn close_unjudged(&mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) -> bool {
        let first = std::mem::take(&mut self.open);
        if first {
            self.arm.state.in_flight.fetch_sub(1, Ordering::Relaxed);
            self.arm.metrics.count(outcome, (!self.cached).then(|| self.started.elapsed()));
        }
        first
    }
}

impl Drop for ArmCall {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

/// One request of a client. Dropped before it is closed, the client has left.
#[derive(Debug)]
pub struct ClientCall {
    metrics: Arc<ModelMetrics>,
    /// Its place among the requests that are admitted at one time.
    permit: Option<OwnedSemaphorePermit>,
    open: bool,
    /// Whether it has reached an arm; if not, it is counted as rejected too, so that the sums agree.
    reached: bool,
}

impl ClientCall {
    /// Starts a request.
    pub fn start(metrics: &Arc<ModelMetrics>) -> Self {
        Self { metrics: Arc::clone(metrics), permit: None, open: true, reached: false }
    }

    /// Holds the place of the request until it ends.
    pub fn hold(&mut self, permit: OwnedSemaphorePermit) {
        self.permit = Some(permit);
    }

    /// From now on an arm counts it as well.
    pub fn reach(&mut self) {
        self.reached = true;
    }

    /// Ends the request.
    pub fn close(&mut self, outcome: Outcome) {
        if std::mem::take(&mut self.open) {
            self.metrics.count(outcome);
            self.permit = None;
        }
    }

    /// Ends a request that reached no arm.
    pub fn reject(&mut self, outcome: Outcome, reason: Reason) {
        if self.open {
            self.metrics.count_rejected(reason);
        }
        self.close(outcome);
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        if self.open && !self.reached {
            self.metrics.count_rejected(Reason::ClientLeft);
        }
        self.close(Outcome::Cancelled);
    }
}
