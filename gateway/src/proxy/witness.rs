//! The witness of a candidate that does not answer: stable, asked the same for as long, although nobody waits for that any more.
//!
//! Clients are often more impatient than any time-out, and a candidate that hangs would never be found out by requests whose clients have
//! left. That a client left says little by itself: it may have asked for too much, or have done so on purpose. What stable does with the
//! same request in the same time says who is to blame, whichever clients there are and whatever share they have of the candidate's traffic.

use std::{sync::Arc, time::Duration};

use tokio::{runtime::Handle, time::Instant};

use super::{
    Job,
    arm::{Failure, Retry},
    count::ArmCall,
    plan::Plan,
    shield::{Spent, ask, charge, give_back, outcome_of},
};
use crate::{
    budget::Charge,
    gateway::Gateway,
    latency::Pace,
    metrics::Outcome,
    model::{Arm, Model},
    share::Place,
};

/// Called while a request waits for the candidate; heard when it is dropped before it was dismissed.
#[derive(Debug)]
pub struct Witness {
    /// None when there is no witness, or no need of one any more.
    case: Option<Case>,
    since: Instant,
    /// When stable was asked beside the candidate.
    asked_at: Option<Instant>,
}

/// What the witness is asked.
#[derive(Debug)]
struct Case {
    gateway: Arc<Gateway>,
    model: Arc<Model>,
    plan: Arc<Plan>,
    candidate: Arc<Arm>,
    stable: Arc<Arm>,
    pace: Pace,
}

impl Witness {
    /// Calls stable, unless it has nobody who could answer.
    pub fn new(job: &Job, candidate: &Arc<Arm>, stable: &Arc<Arm>) -> Self {
        let case = || Case {
            gateway: Arc::clone(&job.gateway),
            model: Arc::clone(&job.model),
            plan: Arc::clone(&job.plan),
            candidate: Arc::clone(candidate),
            stable: Arc::clone(stable),
            pace: job.pace,
        };
        Self { case: (!stable.endpoints.is_empty()).then(case), since: Instant::now(), asked_at: None }
    }

    /// Whether there is one.
    pub fn is_called(&self) -> bool {
        self.case.is_some()
    }

    /// Notes that stable was asked beside the candidate.
    pub fn asked(&mut self, at: Instant) {
        self.asked_at = Some(at);
    }

    /// The candidate has answered, or what it did is known.
    pub fn dismiss(&mut self) {
        self.case = None;
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let Some(case) = self.case.take() else { return };
        // A client that did not wait for as long as stable takes says nothing. Nor is stable asked again when it has had the time of a try.
        let time = self.since.elapsed();
        let heard = self.asked_at.is_some_and(|at| at.elapsed() >= case.pace.try_timeout.unwrap_or_default());
        if heard || time < case.pace.patience || case.candidate.is_braked() {
            return;
        }
        // It takes the place of a request and is paid for as a replay is, so that clients who leave cannot make more work than others.
        let (Ok(runtime), Some(place)) = (Handle::try_current(), case.model.shares.place()) else { return };
        match charge(&case.model, &case.candidate) {
            Ok(charge) => {
                case.candidate.metrics.shielded.inc();
                drop(runtime.spawn(case.hear(time, charge, place)));
            }
            Err(Spent) => {
                case.candidate.metrics.shield_refused.inc();
            }
        }
    }
}

impl Case {
    /// Gives stable as long as the candidate had.
    async fn hear(self, time: Duration, charge: Option<Charge>, _place: Arc<Place>) {
        let mut call = ArmCall::start(&self.stable, self.pace, false);
        let deadline = call.since() + time;
        let (gateway, model, plan) = (&self.gateway, &self.model, &self.plan);
        let asked = ask(gateway, model, plan, &self.stable, deadline, Retry::Broken, None).await;
        let outcome = outcome_of(&asked);
        // What it was not given the time for is no failure of stable.
        let ran_out = matches!(asked, Err(Failure::Deadline));
        call.close_unjudged(if ran_out { Outcome::Cancelled } else { outcome });
        if !outcome.is_failure() {
            self.candidate.judge(true);
            give_back(model, charge);
        }
    }
}
