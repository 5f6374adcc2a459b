//! In what order the gateways of all namespaces are updated: few at first, looked at, then more; no
//! further ones while those that were updated do worse than before. One bad version of the data
//! plane reaches a namespace or two and not the cluster.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::observed::UpdatePermission;

/// Seconds that an updated gateway is looked at before it counts as good.
pub const OBSERVATION_SECONDS: i64 = 120;
/// Seconds in which the pods of an updated gateway must be ready.
pub const READY_DEADLINE_SECONDS: i64 = 600;
/// Seconds after which a gateway that may be updated and is not, because nobody can write it, no
/// longer keeps others waiting.
pub const MAX_WAIT_SECONDS: i64 = 60;
/// Failed requests below which nothing is said about a share of them.
const MIN_FAILED_REQUESTS: u64 = 20;
/// The share of failed requests may double, and rise by this besides.
const FAILURE_MARGIN: f64 = 0.01;

/// Requests of the clients of one gateway.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientRequests {
    /// All of them that ended.
    pub ended: u64,
    /// Those that failed by no fault of the client.
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
    /// Namespace by namespace.
    #[default]
    Gradual,
    /// Not at all for now.
    Paused,
    /// All at once.
    Immediate,
}

/// The gateway of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceGateway {
    /// Namespace.
    pub namespace: String,
    /// ModelDeployments that it serves.
    pub models: usize,
    /// Since when it has been allowed to be updated and was not.
    pub allowed_at: Option<Timestamp>,
    /// Since when it has the template of this version, as far as this process knows; none while it
    /// has another one.
    pub updated_at: Option<Timestamp>,
    /// All its pods are ready and made from its template.
    pub rolled_out: bool,
    /// They were not either before it was updated: that is no fault of the version.
    pub broken_before: bool,
    /// It was made with the template of this version, while this process looked: there is no other
    /// one to compare it with. It takes no turn, or a cluster where namespaces come all the time
    /// would never be updated; and no neighbour stops the updates of others with a namespace where
    /// nothing can start.
    pub created_with_version: bool,
    /// Requests in the minutes before it was updated; nothing when this process did not see them.
    pub requests_before: ClientRequests,
    /// Requests in the last minutes, since it was updated.
    pub requests_after: ClientRequests,
}

impl NamespaceGateway {
    fn age(&self, now: Timestamp) -> Option<SignedDuration> {
        self.updated_at.map(|at| now.duration_since(at))
    }

    /// Why it is not well.
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

    /// Whether it could have been updated for long. What refuses that (an admission policy, a spec
    /// that cannot be acted on) may last for ever.
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

/// What is decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateDecision {
    /// By namespace.
    pub updates: BTreeMap<String, UpdatePermission>,
    /// Updated gateways that are not well, and why. For administrators: namespaces are not told of
    /// each other.
    pub problems: BTreeMap<String, String>,
}

/// Decides for all gateways.
pub fn decide_updates(
    gateways: &[NamespaceGateway],
    mode: UpdateMode,
    now: Timestamp,
) -> UpdateDecision {
    let troubles =
        || gateways.iter().filter_map(|it| Some((it.namespace.clone(), it.problem(now)?)));
    let troubles: BTreeMap<_, _> = troubles().collect();
    let mut behind: Vec<_> = gateways.iter().filter(|it| it.updated_at.is_none()).collect();
    // Those first that a bad version has left without pods, then those whose failure would hurt
    // least.
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
    // As many at a time as have turned out well.
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
