//! Guards that count each request exactly once, however it ends.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use slipway_gateway_policy::failure::ArmFailure;
use slipway_gateway_policy::latency::RequestTiming;
use slipway_gateway_policy::outcome::{RejectReason, RequestOutcome};
use slipway_gateway_policy::share::RequestPermit;
use slipway_gateway_routing::metrics::ModelMetrics;
use slipway_gateway_routing::model::Arm;
use tokio::time::Instant;

/// Whether the client waits for an answer, and since when.
#[derive(Clone, Copy, Debug)]
struct AnswerWait {
    since: Instant,
    blame_threshold: Duration,
    waiting: bool,
}

impl AnswerWait {
    fn start(pace: RequestTiming) -> Self {
        Self { since: Instant::now(), blame_threshold: pace.blame_threshold, waiting: true }
    }

    /// The outcome when there is no answer by the deadline: `timeout` when the time was at least
    /// what stable takes, for both arms alike, so that their comparison is fair; otherwise no arm
    /// is to blame.
    fn expired_outcome(&self) -> RequestOutcome {
        if self.since.elapsed() >= self.blame_threshold {
            RequestOutcome::Timeout
        } else {
            RequestOutcome::Cancelled
        }
    }

    /// The outcome when the client disconnects: the same, if it was waiting for the answer.
    fn abandoned_outcome(&self) -> RequestOutcome {
        if self.waiting { self.expired_outcome() } else { RequestOutcome::Cancelled }
    }
}

/// One request to one arm. When it is dropped before it is closed, its client has disconnected.
#[derive(Debug)]
pub struct ArmCall {
    arm: Arc<Arm>,
    timing: RequestTiming,
    wait: AnswerWait,
    open: bool,
    is_evidence: bool,
    cached: bool,
    /// Time of the head of an event stream, whose length depends on the client.
    streams_since: Option<Duration>,
}

impl ArmCall {
    /// Starts a request; `judged` is whether it is evidence for the brake and the judge. Requests
    /// at the preview address are none.
    pub fn start(arm: &Arc<Arm>, pace: RequestTiming, judged: bool) -> Self {
        arm.counts.requests.fetch_add(u64::from(judged), Ordering::Relaxed);
        arm.state.in_flight.fetch_add(1, Ordering::Relaxed);
        let (arm, wait) = (Arc::clone(arm), AnswerWait::start(pace));
        Self {
            arm,
            timing: pace,
            wait,
            open: true,
            is_evidence: judged,
            cached: false,
            streams_since: None,
        }
    }

    pub fn arm(&self) -> &Arc<Arm> {
        &self.arm
    }

    /// Sets whether the answer came from a cache: its time is then no evidence.
    pub fn set_cached(&mut self, cached: bool) {
        self.cached = cached;
    }

    /// When it started.
    pub fn started_at(&self) -> Instant {
        self.wait.since
    }

    /// Sets whether the client waits for the pod.
    pub fn set_waiting(&mut self, waiting: bool) {
        self.wait.waiting = waiting;
    }

    /// Records that the answer is an event stream, whose length is no evidence.
    pub fn mark_streaming(&mut self) {
        self.streams_since = Some(self.wait.since.elapsed());
    }

    /// Ends the request.
    pub fn close(&mut self, outcome: RequestOutcome) {
        if self.end(outcome) && self.is_evidence {
            self.arm.update_brake_by_outcome(outcome);
        }
    }

    /// Ends the request without an answer. When its deadline passed and no other arm was tried, the
    /// brake counts it only if the deadline was the ModelDeployment's own: clients may set theirs
    /// arbitrarily short.
    pub fn fail(&mut self, failure: ArmFailure) {
        let outcome = self.failure_outcome(failure);
        let counts_for_brake = failure != ArmFailure::Deadline
            || self.wait.since.elapsed() >= self.timing.full_timeout;
        if self.end(outcome) && self.is_evidence && counts_for_brake {
            self.arm.update_brake_by_outcome(outcome);
        }
    }

    /// The outcome of a request without an answer.
    pub fn failure_outcome(&self, failure: ArmFailure) -> RequestOutcome {
        if failure == ArmFailure::Deadline {
            self.wait.expired_outcome()
        } else {
            failure.outcome()
        }
    }

    /// Ends the request without informing the brake; the caller judges it.
    pub fn close_unjudged(&mut self, outcome: RequestOutcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: RequestOutcome) -> bool {
        let first = std::mem::take(&mut self.open);
        if first {
            let took = self.wait.since.elapsed();
            // First, so that no request is reported as ended before its answer is counted.
            if self.is_evidence
                && matches!(outcome, RequestOutcome::Success | RequestOutcome::ClientError)
            {
                self.arm.counts.answered.fetch_add(1, Ordering::Relaxed);
            }
            self.arm.state.in_flight.fetch_sub(1, Ordering::Release);
            let counted = self.outcome_by_time(outcome, took);
            self.arm.metrics.count(counted, (!self.cached).then_some(took), !self.is_evidence);
            self.record_latency(outcome == RequestOutcome::Success, counted, took);
        }
        first
    }

    /// The outcome, depending on the time it took. An answer after the try time-out counts as such
    /// in both arms, because the candidate is abandoned at that time if stable answers.
    fn outcome_by_time(&self, outcome: RequestOutcome, took: Duration) -> RequestOutcome {
        let late = || {
            self.timing.try_timeout.is_some_and(|time| self.streams_since.unwrap_or(took) > time)
        };
        match outcome {
            RequestOutcome::Success | RequestOutcome::ClientError if late() => {
                RequestOutcome::TryTimeout
            }
            other => other,
        }
    }

    /// Records the answer time of the revision. Errors and cached answers have no meaningful times.
    fn record_latency(&self, answered: bool, counted: RequestOutcome, took: Duration) {
        if !self.is_evidence || self.cached {
            return;
        }
        if answered {
            self.arm.state.latency.record(self.streams_since.unwrap_or(took));
        } else if matches!(counted, RequestOutcome::Timeout | RequestOutcome::TryTimeout) {
            self.arm.state.latency.record_at_least(took);
        }
    }
}

impl Drop for ArmCall {
    fn drop(&mut self) {
        self.end(self.wait.abandoned_outcome());
    }
}

/// One request of a client. When it is dropped before it is closed, the client has disconnected.
#[derive(Debug)]
pub struct ClientCall {
    metrics: Arc<ModelMetrics>,
    /// Its permit among the concurrent requests.
    permit: Option<Arc<RequestPermit>>,
    open: bool,
    /// Present when it has reached an arm; otherwise it is also counted as rejected, so that the
    /// sums agree.
    wait: Option<AnswerWait>,
}

impl ClientCall {
    /// Starts a request.
    pub fn start(metrics: &Arc<ModelMetrics>) -> Self {
        Self { metrics: Arc::clone(metrics), permit: None, open: true, wait: None }
    }

    /// Holds the permit of the request until it ends.
    pub fn hold_permit(&mut self, place: Arc<RequestPermit>) {
        self.permit = Some(place);
    }

    /// Records that an arm counts the request, too.
    pub fn mark_reached_arm(&mut self, pace: RequestTiming) {
        self.wait.get_or_insert_with(|| AnswerWait::start(pace));
    }

    /// Sets whether the client waits for its answer.
    pub fn set_waiting(&mut self, waiting: bool) {
        if let Some(wait) = &mut self.wait {
            wait.waiting = waiting;
        }
    }

    /// Ends the request.
    pub fn close(&mut self, outcome: RequestOutcome) {
        if std::mem::take(&mut self.open) {
            self.metrics.count(outcome);
            if let Some(place) = self.permit.take() {
                place.release();
            }
        }
    }

    /// Ends a request that reached no arm.
    pub fn reject(&mut self, outcome: RequestOutcome, reason: RejectReason) {
        if self.open {
            self.metrics.count_rejected(reason);
        }
        self.close(outcome);
    }
}

impl Drop for ClientCall {
    fn drop(&mut self) {
        if self.open && self.wait.is_none() {
            self.metrics.count_rejected(RejectReason::ClientLeft);
        }
        self.close(self.wait.map_or(RequestOutcome::Cancelled, |wait| wait.abandoned_outcome()));
    }
}
