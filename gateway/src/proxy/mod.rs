//! One client request from its head to its answer.

pub mod answer;
pub mod arm;
pub mod count;
pub mod grpc;
pub mod headers;
pub mod named;
pub mod own;
pub mod plan;
pub mod reserved;
pub mod shield;
pub mod upload;
pub mod witness;

use std::{
    net::IpAddr,
    sync::{Arc, atomic::Ordering},
};

use http::{
    HeaderMap, Method, Request, Response, Version,
    header::{AUTHORIZATION, HOST},
    request::Parts,
};
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::Instrument as _;

use self::{
    answer::{AnswerBody, Head, Passing, Refusal},
    arm::{Failure, Retry, reach},
    count::{ArmCall, ClientCall},
    plan::{Plan, deadline},
    reserved::Reserved,
    upload::ClientBody,
};
use crate::{
    config::Role,
    feedback,
    gateway::Gateway,
    latency::Pace,
    metrics::{Outcome, Reason},
    model::{Arm, Model},
    select::{Route, Target, select},
    upstream::Download,
};

/// A request that was read, on its way to an arm.
#[derive(Debug)]
pub struct Job {
    gateway: Arc<Gateway>,
    model: Arc<Model>,
    plan: Arc<Plan>,
    client: ClientCall,
    deadline: Instant,
    pace: Pace,
}

/// Answers one request, within a span of it where traces are on.
pub async fn traced(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
    peer: IpAddr,
    access: Access,
) -> Response<AnswerBody> {
    if !slipway_telemetry::enabled() {
        return handle(gateway, request, peer, access).await;
    }
    let span = slipway_telemetry::server_span(request.method(), request.uri().path(), request.headers());
    let response = handle(gateway, request, peer, access).instrument(span.clone()).await;
    slipway_telemetry::answered(&span, response.status());
    response
}

/// By which port a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// The one for everybody.
    Public,
    /// The one for those who show the token.
    Private,
}

/// A request as it came.
#[derive(Debug)]
pub struct Received {
    parts: Parts,
    body: ClientBody,
    at: Instant,
    access: Access,
}

impl Received {
    fn new(parts: Parts, body: Incoming, peer: IpAddr, access: Access) -> Self {
        Self { parts, body: ClientBody::new(body, peer), at: Instant::now(), access }
    }

    /// Its head and its body.
    pub fn into_parts(self) -> (Parts, ClientBody) {
        (self.parts, self.body)
    }
}

/// Answers one request.
pub async fn handle(
    gateway: Arc<Gateway>,
    request: Request<Incoming>,
    peer: IpAddr,
    access: Access,
) -> Response<AnswerBody> {
    let grpc = grpc::is_grpc(request.headers());
    let (mut parts, body) = request.into_parts();
    if access == Access::Private {
        if let Some(refusal) = reserved::refuse(&gateway, &parts) {
            return refusal.answer(grpc);
        }
        // The token is the namespace's: no model server gets to see it.
        parts.headers.remove(AUTHORIZATION);
    }
    let authority = parts.uri.host().or_else(|| parts.headers.get(HOST)?.to_str().ok());
    let path = parts.uri.path();
    let target = select(&gateway.router.table(), &gateway.settings.namespace, authority, path, grpc);
    match target {
        Target::Model(route) => forward(gateway, route, Received::new(parts, body, peer, access)).await,
        Target::Gateway if grpc => own::grpc(&gateway, path),
        Target::Gateway => own::rest(&gateway, &parts.method, path),
        Target::Message => {
            let received = Received::new(parts, body, peer, access);
            // Boxed, as it is rare: the future of all others would carry its room along.
            Box::pin(named::answer(gateway, received)).await
        }
        Target::Nobody(refusal) => {
            gateway.metrics.unrouted.inc();
            refusal.answer(grpc)
        }
    }
}

/// Answers a request that is for a ModelDeployment.
async fn forward(gateway: Arc<Gateway>, route: Route, received: Received) -> Response<AnswerBody> {
    let grpc = grpc::is_grpc(&received.parts.headers);
    let reserved = reserved::what(&route, &received.parts, grpc);
    if reserved.is_some() && received.access == Access::Public {
        return Refusal::Private.answer(grpc);
    }
    if reserved == Some(Reserved::Feedback) {
        // Boxed, as all that is rare.
        return Box::pin(feedback::answer(&gateway, &route.model, received)).await;
    }
    let Received { parts, mut body, at, access } = received;
    if let Some(answer) = health(&route, &parts) {
        return answer;
    }
    let mut client = ClientCall::start(&route.model.metrics);
    let shares = &route.model.shares;
    let Some(place) = shares.admit(body.peer()) else { return reject(client, Refusal::Overloaded, grpc) };
    body.hold(&shares.uploads, &place);
    client.hold(place);
    if parts.method == Method::CONNECT {
        return reject(client, Refusal::Method, grpc);
    }
    let deadline = deadline(at, route.model.config.timeout, &parts.headers);
    let mut plan = match Plan::read(&gateway.settings, &route.model, parts, body, deadline).await {
        Ok(plan) => plan,
        Err(refusal) => return reject(client, refusal, grpc),
    };
    // Weights may have changed while the body came in.
    let current = gateway.router.table().models.get(&route.model.config.name).cloned();
    let model = current.filter(|model| model.config.uid == route.model.config.uid).unwrap_or(route.model);
    if model.config.caching {
        plan.seek_affinity();
    }
    // Who looks at a preview is no evidence, whatever becomes of the answer.
    plan.predicts &= !route.preview;
    if access == Access::Private {
        plan.private = true;
        if let Some(proof) = reserved::proof(&gateway, &model, reserved) {
            plan.prove_access(proof);
        }
    }
    plan.name_limits(&model.limits);
    plan.name_settings(&model.config.pod_settings);
    let (plan, pace) = (Arc::new(plan), model.pace());
    dispatch(Job { gateway, model, plan, client, deadline, pace }, route.preview).await
}

fn reject(mut client: ClientCall, refusal: Refusal, grpc: bool) -> Response<AnswerBody> {
    let reason = match refusal {
        Refusal::Overloaded => Reason::Overloaded,
        Refusal::BodyTimeout | Refusal::BodyTooSlow => Reason::BodyTimeout,
        Refusal::BodyTooLarge => Reason::BodyTooLarge,
        Refusal::NoRevision => Reason::NoRevision,
        Refusal::BadBody => Reason::ClientLeft,
        _ => Reason::BadRequest,
    };
    client.reject(refusal.outcome(), reason);
    refusal.answer(grpc)
}

/// Health of the ModelDeployment itself; probes are no evidence, so they are answered here and not counted.
fn health(route: &Route, parts: &Parts) -> Option<Response<AnswerBody>> {
    let well = match parts.uri.path() {
        "/v2/health/live" => true,
        "/v2/health/ready" => {
            let serves = |arm: Option<&Arc<Arm>>| arm.is_some_and(|arm| !arm.endpoints.is_empty());
            let model = &route.model;
            if route.preview { serves(model.preview()) } else { serves(model.stable()) || serves(model.spill()) }
        }
        _ => return None,
    };
    if !matches!(parts.method, Method::GET | Method::HEAD) {
        return Some(Refusal::Method.answer(false));
    }
    Some(own::health(well, well))
}

/// Chooses the arm and the way to it.
async fn dispatch(job: Job, preview: bool) -> Response<AnswerBody> {
    let model = Arc::clone(&job.model);
    if preview {
        // Who looks at a preview wants to see the candidate as it is: no shield, and nothing for the brake to hear.
        return match model.preview() {
            Some(arm) => direct(job, Arc::clone(arm), false).await,
            None => job.reject(Refusal::NoRevision),
        };
    }
    let shield = model.config.shield.enabled;
    let stable = model.stable();
    if !job.plan.is_whole() && shield && model.has_candidate() {
        // It cannot be replayed, so it is kept from the candidate: the shield never promises what it cannot do.
        model.metrics.unshielded.inc();
        if let Some(stable) = stable {
            stable.tally.unshielded.fetch_add(1, Ordering::Relaxed);
            return to_stable(job, Arc::clone(stable)).await;
        }
    }
    let Some(arm) = model.choose(entity(&model, job.plan.headers())) else { return job.reject(Refusal::NoRevision) };
    let arm = Arc::clone(arm);
    match stable.filter(|_| arm.role == Role::Candidate && shield) {
        // Boxed, as they are for a few: the futures of all others would carry their room along, and are moved more than once before they run.
        Some(stable) if job.plan.is_whole() && job.plan.pure => {
            Box::pin(shield::shielded(job, arm, Arc::clone(stable))).await
        }
        Some(stable) => Box::pin(shield::rescued(job, arm, Arc::clone(stable))).await,
        None if arm.role == Role::Stable => to_stable(job, arm).await,
        None => direct(job, arm, true).await,
    }
}

fn entity<'a>(model: &Model, headers: &'a HeaderMap) -> Option<&'a [u8]> {
    let value = headers.get(model.config.sticky_header.as_ref()?)?;
    (!value.is_empty()).then_some(value.as_bytes())
}

/// Sends a request to stable. While no pod of stable takes it, a candidate that has traffic anyway does: the request has not run, and there is
/// nothing to protect it from that is worse than no answer. With the next request it is stable's turn again.
async fn to_stable(job: Job, stable: Arc<Arm>) -> Response<AnswerBody> {
    match job.model.spill().cloned() {
        Some(candidate) => Box::pin(or_to_candidate(job, stable, candidate)).await,
        None => direct(job, stable, true).await,
    }
}

async fn or_to_candidate(mut job: Job, stable: Arc<Arm>, candidate: Arc<Arm>) -> Response<AnswerBody> {
    if !stable.endpoints.is_empty() {
        let (result, mut call) = ask(&mut job, &stable, true, Retry::Broken).await;
        if !result.as_ref().is_err_and(|failure| *failure == Failure::Unreachable) {
            return job.complete(result, call, None);
        }
        call.close(Outcome::Unavailable);
        stable.metrics.shielded.inc();
    }
    candidate.metrics.spilled.inc();
    // The candidate is made for its share and not for stable's: what it fails of that is counted and does not take it out.
    let (result, mut call) = ask(&mut job, &candidate, false, Retry::Broken).await;
    if !result.as_ref().is_err_and(|failure| *failure == Failure::Unreachable) {
        return job.complete(result, call, None);
    }
    call.close(Outcome::Unavailable);
    candidate.metrics.shielded.inc();
    direct(job, stable, true).await
}

/// Sends a request to an arm with nobody behind it.
async fn direct(mut job: Job, arm: Arc<Arm>, judged: bool) -> Response<AnswerBody> {
    let (result, call) = ask(&mut job, &arm, judged, Retry::Wait).await;
    job.complete(result, call, None)
}

async fn ask(
    job: &mut Job,
    arm: &Arc<Arm>,
    judged: bool,
    retry: Retry,
) -> (Result<Response<Download>, Failure>, ArmCall) {
    let call = ArmCall::start(arm, job.pace, judged);
    job.client.reach(job.pace);
    if arm.role == Role::Stable {
        job.model.budget.note_stable(Instant::now().into_std());
    }
    (reach(&job.gateway, &job.model, arm, &job.plan, job.deadline, retry).await, call)
}

impl Job {
    /// Answers a request that reached no arm.
    fn reject(self, refusal: Refusal) -> Response<AnswerBody> {
        reject(self.client, refusal, self.plan.grpc)
    }

    /// Answers a request whose arm gave no answer.
    fn refuse(mut self, refusal: Refusal) -> Response<AnswerBody> {
        self.client.close(refusal.outcome());
        refusal.answer(self.plan.grpc)
    }

    /// Passes an arm's answer on, or tells the client that there is none.
    fn complete(
        self,
        result: Result<Response<Download>, Failure>,
        mut call: ArmCall,
        shielded: Option<&Arm>,
    ) -> Response<AnswerBody> {
        match result {
            Ok(response) => {
                let arm = Arc::clone(call.arm());
                let (parts, body) = response.into_parts();
                let head = Head::of(parts.status, &parts.headers);
                call.answered(self.model.config.caching && headers::is_cached(&parts.headers));
                let body = Passing::new(body, self.deadline, call, self.client, head);
                let of = Of { gateway: &self.gateway, model: &self.model, plan: &self.plan };
                mark(Response::from_parts(parts, AnswerBody::Passing(Box::new(body))), of, &arm, shielded)
            }
            Err(failure) => {
                call.fail(failure);
                self.refuse(failure.refusal())
            }
        }
    }
}

/// What an answer is to.
#[derive(Clone, Copy)]
struct Of<'a> {
    gateway: &'a Gateway,
    model: &'a Model,
    plan: &'a Plan,
}

/// Makes an arm's answer the gateway's: hop-by-hop headers removed, a prediction gets its id, and who answered is told where the owner says so.
fn mark(mut response: Response<AnswerBody>, of: Of<'_>, arm: &Arm, shielded: Option<&Arm>) -> Response<AnswerBody> {
    *response.version_mut() = Version::HTTP_11;
    let well = response.status().is_success();
    let headers = response.headers_mut();
    headers::strip_hop_by_hop(headers);
    // A pod does not say what the gateway did, nor who it is.
    for name in [headers::SHIELDED, headers::REVISION, headers::PREDICTION_ID] {
        headers.remove(name);
    }
    let report = headers.remove(headers::PREDICTION);
    let well = well && grpc::outcome(headers).is_none_or(|outcome| outcome == Outcome::Success);
    if of.plan.predicts
        && well
        && let Some(id) = feedback::issue(of.gateway, of.model, &arm.revision, report.as_ref())
    {
        headers.insert(headers::PREDICTION_ID, id);
    }
    if of.plan.private || of.model.config.reveals_revision {
        headers.insert(headers::REVISION, arm.header.clone());
        if let Some(candidate) = shielded {
            headers.insert(headers::SHIELDED, candidate.header.clone());
        }
    }
    response
}
