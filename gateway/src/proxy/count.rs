//! Guards that count each request exactly once, whatever becomes of it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::time::Instant;

use super::arm::Failure;
use crate::{
    latency::Pace,
    metrics::{ModelMetrics, Outcome, Reason},
    model::Arm,
    share::Place,
};

/// Whether somebody waits for an answer, and since when.
#[derive(Clone, Copy, Debug)]
struct Wait {
    since: Instant,
    patience: Duration,
    waiting: bool,
}

impl Wait {
    fn start(pace: Pace) -> Self {
        Self { since: Instant::now(), patience: pace.patience, waiting: true }
    }

    /// What it is when there is no answer by the deadline: `timeout` when there was as much time as stable takes, in both arms alike, so that
    /// a comparison of the two is fair; else nobody is to blame.
    fn expired(&self) -> Outcome {
        if self.since.elapsed() >= self.patience { Outcome::Timeout } else { Outcome::Cancelled }
    }

    /// What it is when the client leaves: the same, if it is the answer that it waited for.
    fn left(&self) -> Outcome {
        if self.waiting { self.expired() } else { Outcome::Cancelled }
    }
}

/// One request to one arm. Dropped before it is closed, its client has left.
#[derive(Debug)]
pub struct ArmCall {
    arm: Arc<Arm>,
    pace: Pace,
    wait: Wait,
    open: bool,
    judged: bool,
    cached: bool,
    /// When the answer was there, if it is one that goes on for as long as the client likes.
    streams_since: Option<Duration>,
}

impl ArmCall {
    /// Starts a request; `judged` says whether it is evidence: one at the preview address is none, for the brake and for everybody else.
    pub fn start(arm: &Arc<Arm>, pace: Pace, judged: bool) -> Self {
        arm.tally.requests.fetch_add(u64::from(judged), Ordering::Relaxed);
        arm.state.in_flight.fetch_add(1, Ordering::Relaxed);
        let (arm, wait) = (Arc::clone(arm), Wait::start(pace));
        Self { arm, pace, wait, open: true, judged, cached: false, streams_since: None }
    }

    /// The arm.
    pub fn arm(&self) -> &Arc<Arm> {
        &self.arm
    }

    /// Tells whether the answer is a kept one: it says nothing about how fast the revision answers.
    pub fn answered(&mut self, cached: bool) {
        self.cached = cached;
    }

    /// When it began.
    pub fn since(&self) -> Instant {
        self.wait.since
    }

    /// Tells whether it is the pod that is waited for.
    pub fn waits(&mut self, waiting: bool) {
        self.wait.waiting = waiting;
    }

    /// Tells that the answer is a stream of events, which lasts for as long as it lasts.
    pub fn streams(&mut self) {
        self.streams_since = Some(self.wait.since.elapsed());
    }

    /// Ends the request.
    pub fn close(&mut self, outcome: Outcome) {
        if self.end(outcome) && self.judged {
            self.arm.judge_outcome(outcome);
        }
    }

    /// Ends the request without an answer. Of a deadline that no other arm was asked about the brake hears only when it is the
    /// ModelDeployment's own: clients may set theirs as short as they like.
    pub fn fail(&mut self, failure: Failure) {
        let outcome = self.outcome(failure);
        let heard = failure != Failure::Deadline || self.wait.since.elapsed() >= self.pace.whole;
        if self.end(outcome) && self.judged && heard {
            self.arm.judge_outcome(outcome);
        }
    }

    /// How the request ended that has no answer.
    pub fn outcome(&self, failure: Failure) -> Outcome {
        if failure == Failure::Deadline { self.wait.expired() } else { failure.outcome() }
    }

    /// Ends the request, and leaves the judgement to the caller.
    pub fn close_unjudged(&mut self, outcome: Outcome) {
        self.end(outcome);
    }

    fn end(&mut self, outcome: Outcome) -> bool {
        let first = std::mem::take(&mut self.open);
        if first {
            let took = self.wait.since.elapsed();
            // First, so that no request is told to have ended whose answer is not counted yet.
            if self.judged && matches!(outcome, Outcome::Success | Outcome::ClientError) {
                self.arm.tally.answered.fetch_add(1, Ordering::Relaxed);
            }
            self.arm.state.in_flight.fetch_sub(1, Ordering::Release);
            let counted = self.in_time(outcome, took);
            self.arm.metrics.count(counted, (!self.cached).then_some(took), !self.judged);
            self.learn(outcome == Outcome::Success, counted, took);
        }
        first
    }

    /// What an outcome is by the time that it took. An answer that came later than a try may take is counted as such in both arms, because
    /// the candidate is given up then if stable answers.
    fn in_time(&self, outcome: Outcome, took: Duration) -> Outcome {
        let late = || self.pace.try_timeout.is_some_and(|time| self.streams_since.unwrap_or(took) > time);
        match outcome {
            Outcome::Success | Outcome::ClientError if late() => Outcome::TryTimeout,
            other => other,
        }
    }

    /// Learns from first requests how long the revision takes. Errors come at any time, and kept answers at once.
    fn learn(&self, answered: bool, counted: Outcome, took: Duration) {
        if !self.judged || self.cached {
            return;
        }
        if answered {
            self.arm.state.latency.record(self.streams_since.unwrap_or(took));
        } else if matches!(counted, Outcome::Timeout | Outcome::TryTimeout) {
            self.arm.state.latency.record_at_least(took);
        }
    }
}

impl Drop for ArmCall {
    fn drop(&mut self) {
        self.end(self.wait.left());
    }
}

/// One request of a client. Dropped before it is closed, the client has left.
#[derive(Debug)]
pub struct ClientCall {
    metrics: Arc<ModelMetrics>,
    /// Its place among the requests that are admitted at one time.
    place: Option<Arc<Place>>,
    open: bool,
    /// Present when it has reached an arm; if not, it is counted as rejected too, so that the sums agree.
    wait: Option<Wait>,
}

impl ClientCall {
    /// Starts a request.
    pub fn start(metrics: &Arc<ModelMetrics>) -> Self {
        Self { metrics: Arc::clone(metrics), place: None, open: true, wait: None }
    }

    /// Holds the place of the request until it ends.
    pub fn hold(&mut self, place: Arc<Place>) {
        self.place = Some(place);
    }

    /// From now on an arm counts it as well.
    pub fn reach(&mut self, pace: Pace) {
        self.wait.get_or_insert_with(|| Wait::start(pace));
    }

    /// Tells whether it waits for its answer.
    pub fn waits(&mut self, waiting: bool) {
        if let Some(wait) = &mut self.wait {
            wait.waiting = waiting;
        }
    }

    /// Ends the request.
    pub fn close(&mut self, outcome: Outcome) {
        if std::mem::take(&mut self.open) {
            self.metrics.count(outcome);
            if let Some(place) = self.place.take() {
                place.release();
            }
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
        if self.open && self.wait.is_none() {
            self.metrics.count_rejected(Reason::ClientLeft);
        }
        self.close(self.wait.map_or(Outcome::Cancelled, |wait| wait.left()));
    }
}
