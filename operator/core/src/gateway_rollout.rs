//! The order in which the gateways of all namespaces are updated: a few first, more after an
//! observation time, and no further ones while the updated gateways perform worse than before. A
//! bad version of the data plane so affects one or two namespaces instead of the whole cluster.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::observed::UpdatePermission;

/// Seconds for which an updated gateway is observed before it counts as good.
pub const OBSERVATION_SECONDS: i64 = 120;
/// Seconds within which the pods of an updated gateway must be ready.
pub const READY_DEADLINE_SECONDS: i64 = 600;
/// Seconds after which a gateway that may be updated but was not, because its write is rejected, no
/// longer delays the others.
pub const MAX_WAIT_SECONDS: i64 = 60;
/// Minimum number of failed requests for a judgement about their share.
const MIN_FAILED_REQUESTS: u64 = 20;
/// Margin added to twice the earlier share of failed requests, as a share of 1.
const FAILURE_MARGIN: f64 = 0.01;

/// Counts of the clients' requests to one gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRequests {
    /// Completed requests.
    pub ended: u64,
    /// Requests that failed without a fault of the client.
    pub failed: u64,
}

impl ClientRequests {
    fn failed_share(self) -> f64 {
        if self.ended == 0 { 0.0 } else { self.failed as f64 / self.ended as f64 }
    }
}

/// How gateways are updated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateMode {
    /// One namespace after the other.
    #[default]
    Gradual,
    /// No updates at present.
    Paused,
    /// All namespaces at once.
    Immediate,
}

/// The gateway of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceGateway {
    pub namespace: String,
    /// Number of ModelDeployments that it serves.
    pub models: usize,
    /// Since when an update has been allowed but not done.
    pub allowed_at: Option<Timestamp>,
    /// Since when the gateway has the template of this version, as far as this process knows;
    /// `None` while it has another one.
    pub updated_at: Option<Timestamp>,
    /// Whether all its pods are ready and match its template.
    pub rolled_out: bool,
    /// Whether the pods were not ready before the update either, so that the version is not the
    /// cause.
    pub broken_before: bool,
    /// Whether the gateway was created with the template of this version while this process ran,
    /// so that there is no earlier version to compare with. It counts neither as an update in
    /// progress, because a cluster with frequent new namespaces would never finish the update, nor
    /// as a problem, because a namespace in which nothing can start would stop the updates of all
    /// others.
    pub created_with_version: bool,
    /// Requests in the minutes before the update; zero if this process did not observe them.
    pub requests_before: ClientRequests,
    /// Requests in the last minutes, since the update.
    pub requests_after: ClientRequests,
}

impl NamespaceGateway {
    fn age(&self, now: Timestamp) -> Option<SignedDuration> {
        self.updated_at.map(|at| now.duration_since(at))
    }

    /// Why the gateway counts as faulty.
    fn problem(&self, now: Timestamp) -> Option<String> {
        let age = self.age(now).filter(|_| !self.created_with_version)?;
        if !self.rolled_out
            && !self.broken_before
            && age >= SignedDuration::from_secs(READY_DEADLINE_SECONDS)
        {
            return Some(format!("its new pods are not ready after {} s", age.as_secs()));
        }
        let (before, after) =
            (self.requests_before.failed_share(), self.requests_after.failed_share());
        let worse = self.requests_after.failed >= MIN_FAILED_REQUESTS
            && after > 2.0 * before + FAILURE_MARGIN;
        worse.then(|| {
            format!(
                "{:.1} % of its requests fail, {:.1} % did before",
                100.0 * after,
                100.0 * before
            )
        })
    }

    /// Whether an update has been possible for long but was not done. The cause (an admission
    /// policy, an invalid spec) may be permanent.
    fn is_refused(&self, now: Timestamp) -> bool {
        self.allowed_at
            .is_some_and(|at| now.duration_since(at) >= SignedDuration::from_secs(MAX_WAIT_SECONDS))
    }

    fn is_observed_long_enough(&self, now: Timestamp) -> bool {
        self.rolled_out
            && self
                .age(now)
                .is_some_and(|age| age >= SignedDuration::from_secs(OBSERVATION_SECONDS))
    }
}

/// The decision for all gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateDecision {
    /// The permission of each namespace.
    pub updates: BTreeMap<String, UpdatePermission>,
    /// Faulty updated gateways with the cause, by namespace. Only for administrators: the status
    /// in one namespace must not name another namespace.
    pub problems: BTreeMap<String, String>,
}

pub fn decide_updates(
    gateways: &[NamespaceGateway],
    mode: UpdateMode,
    now: Timestamp,
) -> UpdateDecision {
    let troubles =
        || gateways.iter().filter_map(|it| Some((it.namespace.clone(), it.problem(now)?)));
    let troubles: BTreeMap<_, _> = troubles().collect();
    let mut behind: Vec<_> = gateways.iter().filter(|it| it.updated_at.is_none()).collect();
    // First the gateways that a bad version left without ready pods, then those whose failure would
    // affect the fewest models.
    behind.sort_by_key(|it| (!it.is_refused(now), it.rolled_out, it.models, &it.namespace));
    let refused = behind.iter().filter(|it| it.is_refused(now)).count();
    let broken = behind.get(refused).is_some_and(|it| !it.rolled_out);
    let is_good = |it: &&NamespaceGateway| {
        it.is_observed_long_enough(now) && !troubles.contains_key(&it.namespace)
    };
    let good = gateways.iter().filter(is_good).count();
    let takes_a_turn = |it: &&NamespaceGateway| {
        it.updated_at.is_some()
            && !is_good(it)
            && !it.created_with_version
            && (it.rolled_out || !it.broken_before)
    };
    let in_turn = gateways.iter().filter(takes_a_turn).count();
    // The number of simultaneous updates equals the number of gateways that proved good.
    let at_once = match mode {
        UpdateMode::Gradual => {
            good.max(1).saturating_sub(in_turn).max(usize::from(broken)).saturating_add(refused)
        }
        UpdateMode::Paused => 0,
        UpdateMode::Immediate => behind.len(),
    };
    let stopped = match mode {
        UpdateMode::Gradual if !troubles.is_empty() => Some(
            "gateways of other namespaces do worse since they were updated, so this one is not: the log of the operator and its metric slipway_operator_gateway_trouble name them",
        ),
        UpdateMode::Paused => {
            Some("updates of gateways are paused by the operator's --gateway-update")
        }
        _ => None,
    };
    let verdict = |place: usize| match stopped {
        Some(why) => UpdatePermission::Stopped(why.to_owned()),
        None if place < at_once => UpdatePermission::Allowed,
        None => UpdatePermission::Waiting,
    };
    let waiting =
        behind.iter().enumerate().map(|(place, it)| (it.namespace.clone(), verdict(place)));
    let current = gateways.iter().filter(|it| it.updated_at.is_some());
    let updates = waiting
        .chain(current.map(|it| (it.namespace.clone(), UpdatePermission::Allowed)))
        .collect();
    UpdateDecision { updates, problems: troubles }
}

#[cfg(test)]
mod tests;
