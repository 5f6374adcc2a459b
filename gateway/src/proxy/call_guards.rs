//! Guards that count each request exactly once, whatever becomes of it.

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

/// Whether somebody waits for an answer, and since when.
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

    /// What it is when there is no answer by the deadline: `timeout` when there was as much time as
    /// stable takes, in both arms alike, so that a comparison of the two is fair; else nobody is to
    /// blame.
    fn expired_outcome(&self) -> RequestOutcome {
        if self.since.elapsed() >= self.blame_threshold {
            RequestOutcome::Timeout
        } else {
            RequestOutcome::Cancelled
        }
    }

    /// What it is when the client leaves: the same, if it is the answer that it waited for.
    fn abandoned_outcome(&self) -> RequestOutcome {
        if self.waiting { self.expired_outcome() } else { RequestOutcome::Cancelled }
    }
}

/// One request to one arm. Dropped before it is closed, its client has left.
#[derive(Debug)]
pub struct ArmCall {
    arm: Arc<Arm>,
    timing: RequestTiming,
    wait: AnswerWait,
    open: bool,
    is_evidence: bool,
    cached: bool,
    /// When the answer was there, if it is one that goes on for as long as the client likes.
    streams_since: Option<Duration>,
}

impl ArmCall {
    /// Starts a request; `judged` says whether it is evidence: one at the preview address is none,
    /// for the brake and for everybody else.
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

    /// The arm.
    pub fn arm(&self) -> &Arc<Arm> {
        &self.arm
    }

    /// Tells whether the answer is a kept one: it says nothing about how fast the revision answers.
    pub fn set_cached(&mut self, cached: bool) {
        self.cached = cached;
    }

    /// When it began.
    pub fn started_at(&self) -> Instant {
        self.wait.since
    }

    /// Tells whether it is the pod that is waited for.
    pub fn set_waiting(&mut self, waiting: bool) {
        self.wait.waiting = waiting;
    }

    /// Tells that the answer is a stream of events, which lasts for as long as it lasts.
    pub fn mark_streaming(&mut self) {
        self.streams_since = Some(self.wait.since.elapsed());
    }

    /// Ends the request.
    pub fn close(&mut self, outcome: RequestOutcome) {
        if self.end(outcome) && self.is_evidence {
            self.arm.update_brake_by_outcome(outcome);
        }
    }

    /// Ends the request without an answer. Of a deadline that no other arm was asked about the
    /// brake hears only when it is the ModelDeployment's own: clients may set theirs as short as
    /// they like.
    pub fn fail(&mut self, failure: ArmFailure) {
        let outcome = self.failure_outcome(failure);
        let heard = failure != ArmFailure::Deadline
            || self.wait.since.elapsed() >= self.timing.full_timeout;
        if self.end(outcome) && self.is_evidence && heard {
            self.arm.update_brake_by_outcome(outcome);
        }
    }

    /// How the request ended that has no answer.
    pub fn failure_outcome(&self, failure: ArmFailure) -> RequestOutcome {
        if failure == ArmFailure::Deadline {
            self.wait.expired_outcome()
        } else {
            failure.outcome()
        }
    }

    /// Ends the request, and leaves the judgement to the caller.
    pub fn close_unjudged(&mut self, outcome: RequestOutcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: RequestOutcome) -> bool {
        let first = std::mem::take(&mut self.open);
        if first {
            let took = self.wait.since.elapsed();
            // First, so that no request is told to have ended whose answer is not counted yet.
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

    /// What an outcome is by the time that it took. An answer that came later than a try may take
    /// is counted as such in both arms, because the candidate is given up then if stable answers.
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

    /// Learns from first requests how long the revision takes. Errors come at any time, and kept
    /// answers at once.
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

/// One request of a client. Dropped before it is closed, the client has left.
#[derive(Debug)]
pub struct ClientCall {
    metrics: Arc<ModelMetrics>,
    /// Its place among the requests that are admitted at one time.
    permit: Option<Arc<RequestPermit>>,
    open: bool,
    /// Present when it has reached an arm; if not, it is counted as rejected too, so that the sums
    /// agree.
    wait: Option<AnswerWait>,
}

impl ClientCall {
    /// Starts a request.
    pub fn start(metrics: &Arc<ModelMetrics>) -> Self {
        Self { metrics: Arc::clone(metrics), permit: None, open: true, wait: None }
    }

    /// Holds the place of the request until it ends.
    pub fn hold_permit(&mut self, place: Arc<RequestPermit>) {
        self.permit = Some(place);
    }

    /// From now on an arm counts it as well.
    pub fn mark_reached_arm(&mut self, pace: RequestTiming) {
        self.wait.get_or_insert_with(|| AnswerWait::start(pace));
    }

    /// Tells whether it waits for its answer.
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
