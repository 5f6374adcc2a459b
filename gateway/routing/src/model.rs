//! One ModelDeployment in the data plane: its arms, its split, and the state that outlives a change
//! of weights.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use slipway_gateway_policy::brake::ArmBrake;
use slipway_gateway_policy::budget::ShieldBudget;
use slipway_gateway_policy::config::{ArmRole, BrakeConfig, ModelConfig, TrafficWeights};
use slipway_gateway_policy::latency::{ArmLatency, RequestTiming};
use slipway_gateway_policy::outcome::RequestOutcome;
use slipway_gateway_policy::split::{SLOTS, SlotSchedule, StickySlots};
use slipway_gateway_upstream::endpoint::EndpointSet;

use crate::changes::ModelChanges;
use crate::metrics::{ArmMetrics, ModelMetrics};
use crate::shares::ModelShares;

/// State of a revision that outlives changes of weights and endpoints.
#[derive(Debug, Default)]
pub struct ArmState {
    /// Number of requests in flight.
    pub in_flight: AtomicUsize,
    pub brake: ArmBrake,
    /// Its answer times.
    pub latency: ArmLatency,
}

impl ArmState {
    /// Number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

/// Counts of a revision since a generation of weights was applied.
#[derive(Debug, Default)]
pub struct ArmCounts {
    /// Requests that were sent to it.
    pub requests: AtomicU64,
    /// Requests that it answered, including client errors (4xx).
    pub answered: AtomicU64,
    /// For stable: requests that were kept from the candidate because their bodies could not be
    /// buffered for a replay.
    pub unshielded: AtomicU64,
}

/// One revision in one role under one generation of weights.
#[derive(Debug)]
pub struct Arm {
    pub revision: String,
    /// The revision as a header value for answers.
    pub header: HeaderValue,
    pub role: ArmRole,
    /// Its weight in thousandths.
    pub permille: u32,
    /// Its pods.
    pub endpoints: EndpointSet,
    /// State that outlives this generation.
    pub state: Arc<ArmState>,
    /// Counts since the generation was applied.
    pub counts: Arc<ArmCounts>,
    /// Handles of its series.
    pub metrics: ArmMetrics,
    /// Settings of its brake.
    pub brake: BrakeConfig,
    /// Is notified when the brake trips.
    pub changes: ModelChanges,
}

impl Arm {
    /// Whether it gets no traffic because its brake has tripped.
    pub fn is_braked(&self) -> bool {
        self.role == ArmRole::Candidate && self.state.brake.is_tripped()
    }

    /// Records one request in the brake. Stable has no brake, because there is no alternative to
    /// it.
    pub fn update_brake(&self, failed: bool) {
        if self.role != ArmRole::Candidate {
            return;
        }
        let trip = self.state.brake.observe(&self.revision, failed, self.brake, Timestamp::now());
        if let Some(trip) = trip {
            self.metrics.gauges.braked.set(1);
            tracing::warn!(
                revision = trip.revision,
                generation = trip.generation,
                reason = trip.reason,
                "brake acted"
            );
            self.changes.announce();
        }
    }

    /// Records an outcome in the brake. A request whose client disconnected is not evidence.
    pub fn update_brake_by_outcome(&self, outcome: RequestOutcome) {
        if outcome != RequestOutcome::Cancelled {
            self.update_brake(outcome.is_failure());
        }
    }

    /// Whether it has a share of the traffic now.
    fn is_weighted(&self) -> bool {
        self.permille > 0 && !self.is_braked()
    }
}

/// Limits of a ModelDeployment's requests, as headers for pods.
#[derive(Clone, Debug)]
pub struct LimitHeaders {
    /// Value of `x-request-timeout-ms`, when the client sends none.
    pub milliseconds: HeaderValue,
    /// Value of `grpc-timeout`, when the client sends none.
    pub grpc: HeaderValue,
    /// Value of `x-slipway-max-request-bytes`; `None` when it equals the default of model servers.
    pub max_request: Option<HeaderValue>,
}

/// Default limit of a model server for request bodies.
const DEFAULT_MAX_REQUEST: usize = 16 << 20;

impl LimitHeaders {
    /// The headers for a timeout in whole seconds and a size in bytes.
    pub fn new(timeout: Duration, max_request: usize) -> Self {
        let differs = max_request != DEFAULT_MAX_REQUEST;
        // gRPC allows at most eight digits.
        let grpc = HeaderValue::try_from(format!("{}S", timeout.as_secs().min(99_999_999)));
        let grpc = grpc.unwrap_or(HeaderValue::from_static("30S"));
        Self {
            milliseconds: u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).into(),
            grpc,
            max_request: differs.then(|| HeaderValue::from(max_request)),
        }
    }
}

/// One ModelDeployment under one generation of weights.
#[derive(Debug)]
pub struct RoutedModel {
    /// Its configuration.
    pub config: ModelConfig,
    /// Limits of its requests, as headers for pods.
    pub limits: LimitHeaders,
    /// The weights in force: those of the operator, the last known ones, or a guess; `None` while
    /// nothing is known.
    pub weights: Option<TrafficWeights>,
    /// Its arms in the order of the weights; the preview arm last, if it has no weight of its own.
    pub arms: Vec<Arc<Arm>>,
    /// Revisions without weight that still answer requests.
    pub draining_arms: Vec<(String, Arc<ArmState>)>,
    /// Slots of requests without stickiness.
    pub schedule: Arc<SlotSchedule>,
    /// Slots of entities.
    pub stickiness: StickySlots,
    /// Budget of the shield.
    pub budget: Arc<ShieldBudget>,
    /// Its part of the resources that all ModelDeployments share.
    pub shares: ModelShares,
    /// Handles of its series.
    pub metrics: Arc<ModelMetrics>,
}

impl RoutedModel {
    /// The arm to which traffic returns.
    pub fn stable(&self) -> Option<&Arc<Arm>> {
        self.arms.iter().find(|arm| arm.role == ArmRole::Stable)
    }

    /// The arm of a revision.
    pub fn arm(&self, revision: &str) -> Option<&Arc<Arm>> {
        self.arms.iter().find(|arm| arm.revision == revision)
    }

    /// The arm behind the preview address.
    pub fn preview_arm(&self) -> Option<&Arc<Arm>> {
        self.weights.as_ref()?.preview.as_ref().and_then(|revision| self.arm(revision))
    }

    /// Whether any candidate has a share of the traffic now.
    pub fn has_candidate(&self) -> bool {
        self.candidates().any(|arm| arm.is_weighted())
    }

    /// The candidate that takes stable's requests while stable has no endpoint: one with a weight
    /// and with pods.
    pub fn spillover_arm(&self) -> Option<&Arc<Arm>> {
        let able = self.candidates().filter(|arm| arm.is_weighted() && !arm.endpoints.is_empty());
        able.max_by_key(|arm| arm.permille)
    }

    /// The current time limits.
    pub fn timing(&self) -> RequestTiming {
        let stable = self.stable().and_then(|arm| arm.state.latency.p99());
        let compared = self.config.shield.enabled && self.has_candidate();
        RequestTiming::new(
            stable,
            self.config.timeout,
            compared.then_some(self.config.shield.candidate_timeout),
        )
    }

    /// The arm of the next request; `entity` is the value of the sticky header.
    pub fn choose_arm(&self, entity: Option<&[u8]>) -> Option<&Arc<Arm>> {
        let stable = self.stable();
        if stable.is_some() && self.candidates().all(|arm| arm.permille == 0) {
            return stable;
        }
        let slot =
            entity.map_or_else(|| self.schedule.next_slot(), |entity| self.stickiness.slot(entity));
        match self.slot_owner(slot) {
            Some(arm) if !arm.is_braked() => Some(arm),
            braked => stable.or(braked),
        }
    }

    /// The owner of a slot. Candidates own the slots from 0 up, in their order; stable owns the
    /// rest.
    fn slot_owner(&self, slot: u32) -> Option<&Arc<Arm>> {
        debug_assert!(slot < SLOTS);
        let mut end = 0;
        self.candidates()
            .find(|arm| {
                end += arm.permille;
                slot < end
            })
            .or(self.stable())
            .or(self.arms.first())
    }

    /// Arms whose pods must be available: arms with a share, stable because traffic may return to
    /// it, and the preview arm.
    pub fn needed_arms(&self) -> impl Iterator<Item = &Arc<Arm>> {
        let preview = self.preview_arm().map(|arm| &arm.revision);
        self.arms.iter().filter(move |arm| {
            let has_share = arm.permille > 0 && !arm.is_braked();
            !self.config.scaled_to_zero
                && (arm.role == ArmRole::Stable || has_share || Some(&arm.revision) == preview)
        })
    }

    fn candidates(&self) -> impl Iterator<Item = &Arc<Arm>> {
        self.arms.iter().filter(|arm| arm.role == ArmRole::Candidate)
    }
}
