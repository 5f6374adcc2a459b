//! One request at one arm: wait for a pod if there is none, choose pods, retry what is safe to retry.

use std::{net::SocketAddr, pin::pin, sync::Arc};

use http::Response;
use tokio::time::{Instant, timeout_at};

use super::{answer::Refusal, plan::Plan};
use crate::{
    config::Role,
    endpoint::{Endpoint, Visit},
    gateway::Gateway,
    metrics::Outcome,
    model::{Arm, Model},
    upstream::{Download, SendError, send},
};

/// Pods that are tried for one request.
const MAX_PODS: usize = 3;

/// What is tried at one arm before its failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Other pods that take the request where one did not. There is another arm to go to.
    Unsent,
    /// Also, once, a pure request that a pod broke off.
    Broken,
    /// Also pods that are yet to come, for a moment. There is nowhere else to go.
    Wait,
}

/// Why an arm gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No pod took the request: it did not run.
    Unreachable,
    /// A pod broke off: it may have run.
    Broken,
    /// No answer in time: it may have run.
    Deadline,
    /// The client broke off while its body passed through.
    ClientLeft,
    /// The client's body passed through until it was larger than is allowed.
    TooLarge,
    /// The client's body passed through, too slowly to keep its place.
    TooSlow,
}

impl Failure {
    /// How the arm's request ended.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Unreachable => Outcome::Unavailable,
            Self::Broken => Outcome::ServerError,
            Self::Deadline => Outcome::Timeout,
            Self::ClientLeft | Self::TooLarge | Self::TooSlow => Outcome::Cancelled,
        }
    }

    /// What the client is told.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Unreachable => Refusal::Unreachable,
            Self::Broken => Refusal::Broken,
            Self::Deadline => Refusal::Deadline,
            Self::ClientLeft => Refusal::BadBody,
            Self::TooLarge => Refusal::BodyTooLarge,
            Self::TooSlow => Refusal::BodyTooSlow,
        }
    }
}

/// Sends the request to the arm.
///
/// # Errors
/// When there is no answer; the head of an answer of any status is a success here.
pub async fn reach(
    gateway: &Gateway,
    model: &Model,
    arm: &Arc<Arm>,
    plan: &Plan,
    deadline: Instant,
    retry: Retry,
) -> Result<Response<Download>, Failure> {
    let work = async {
        let until = deadline.min(Instant::now() + gateway.settings.endpoint_wait);
        let (mut attempts, mut current) = (Attempts::default(), Arc::clone(arm));
        loop {
            let failure = match attempts.run(&current, plan, retry).await {
                Ok(response) => return Ok(response),
                Err(Stop::Final(failure)) => return Err(failure),
                Err(Stop::NobodyLeft(failure)) => failure,
            };
            if retry != Retry::Wait {
                return Err(failure);
            }
            match Box::pin(wait_for_endpoint(gateway, model, arm, &attempts.tried, until)).await {
                Some(arm) => current = arm,
                None => return Err(failure),
            }
        }
    };
    let span =
        || slipway_telemetry::span!("arm", otel.kind = "client", revision = arm.revision.as_str(), role = ?arm.role);
    // By reference: the future of who waits would have room for it twice.
    let work = pin!(timeout_at(deadline, work));
    slipway_telemetry::traced(span, work).await.unwrap_or(Err(Failure::Deadline))
}

/// Why a round of attempts ended without an answer.
enum Stop {
    /// Nothing more may be tried.
    Final(Failure),
    /// Every pod of the table was tried; one that is not in it may still be.
    NobodyLeft(Failure),
}

/// What was tried for one request.
#[derive(Debug, Default)]
struct Attempts {
    tried: Vec<SocketAddr>,
    /// Where the request broke off; it is sent again once.
    broke_at: Option<SocketAddr>,
    sent: usize,
}

impl Attempts {
    /// Tries the pods of an arm.
    async fn run(&mut self, arm: &Arm, plan: &Plan, retry: Retry) -> Result<Response<Download>, Stop> {
        while self.tried.len() < MAX_PODS {
            let Some(visit) = pick(arm, &self.tried, self.broke_at, plan.affinity) else {
                return Err(Stop::NobodyLeft(self.failure()));
            };
            let Some(mut request) = plan.request() else { return Err(Stop::Final(self.failure())) };
            slipway_telemetry::inject(request.headers_mut());
            let endpoint = Arc::clone(&visit.endpoint);
            if self.sent > 0 {
                arm.metrics.retries.inc();
            }
            self.sent += 1;
            // After one broken connection the others to the same pod are doubtful.
            match send(visit, request, plan.protocol(), self.broke_at.is_some()).await {
                Ok(response) => return Ok(response),
                Err(SendError::Unsent(request, error)) => {
                    tracing::debug!(addr = %endpoint.addr, error, "no connection");
                    endpoint.suspect();
                    plan.take_back(*request);
                    self.tried.push(endpoint.addr);
                }
                Err(SendError::Upload(failure)) => return Err(Stop::Final(failure)),
                Err(SendError::Broken { error, reused }) => {
                    tracing::debug!(addr = %endpoint.addr, error, "broke off");
                    self.broke(&endpoint, reused, plan.pure, retry)?;
                }
            }
        }
        Err(Stop::Final(self.failure()))
    }

    /// Allows one more attempt, or none. A connection that had served before may have been closed in the moment of sending: the pod
    /// is not to blame, and may be the only one. On a new connection it is, and another is tried only where that was asked for.
    fn broke(&mut self, endpoint: &Endpoint, reused: bool, pure: bool, retry: Retry) -> Result<(), Stop> {
        if self.broke_at.is_some() || !pure || !(reused || retry != Retry::Unsent) {
            return Err(Stop::Final(Failure::Broken));
        }
        self.broke_at = Some(endpoint.addr);
        if !reused {
            self.tried.push(endpoint.addr);
        }
        Ok(())
    }

    fn failure(&self) -> Failure {
        self.broke_at.map_or(Failure::Unreachable, |_| Failure::Broken)
    }
}

/// Chooses a pod that was not tried; the one that broke off only when there is no other.
fn pick(arm: &Arm, tried: &[SocketAddr], broke_at: Option<SocketAddr>, affinity: Option<u64>) -> Option<Visit> {
    let pick = |tried: &[SocketAddr]| match affinity {
        Some(fingerprint) => arm.endpoints.pick_affine(fingerprint, tried),
        None => arm.endpoints.pick(tried),
    };
    let Some(broke_at) = broke_at else { return pick(tried) };
    let doubtful: Vec<_> = tried.iter().copied().chain([broke_at]).collect();
    pick(&doubtful).or_else(|| pick(tried))
}

/// Waits for the arm to have an endpoint that was not tried. A moment without any is an ordinary part of a bad day (all pods
/// restarted at once), and the pods that were tried may be those of a table that has been replaced meanwhile.
async fn wait_for_endpoint(
    gateway: &Gateway,
    model: &Model,
    arm: &Arm,
    tried: &[SocketAddr],
    until: Instant,
) -> Option<Arc<Arm>> {
    let mut changes = gateway.router.subscribe();
    loop {
        let current = gateway.router.table().models.get(&model.config.name).cloned();
        // Stable may be another revision by now: what counts is that somebody answers.
        let arm = current.and_then(|model| match arm.role {
            Role::Stable => model.stable().cloned(),
            Role::Candidate => model.arm(&arm.revision).cloned(),
        });
        if let Some(arm) = arm.filter(|arm| arm.endpoints.has_other_than(tried)) {
            return Some(arm);
        }
        timeout_at(until, changes.changed()).await.ok()?.ok()?;
    }
}
