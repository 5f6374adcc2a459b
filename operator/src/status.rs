//! The status: written whole by server-side apply on the subresource, only when it differs from the stored one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use slipway_crds::conditions::READY;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

use crate::apply::{Subject, limited};
use crate::error::WriteError;
use crate::main_watch::status_hash;
use crate::own_writes::OwnWrites;

/// Field manager of the status.
pub const STATUS_MANAGER: &str = "slipway-status";
/// Reason of [`READY`] when a write is refused and a person has to act.
pub use slipway_crds::conditions::reason::WRITE_REFUSED;
/// How long a status may wait whose difference is only in counts of pods, so that a burst of changes becomes one write.
pub const MAY_WAIT: Duration = Duration::from_secs(2);

/// Whether two statuses differ on the wire.
pub fn differs(stored: Option<&ModelDeploymentStatus>, wanted: &ModelDeploymentStatus) -> bool {
    status_hash(stored) != status_hash(Some(wanted))
}

/// Writes the status over the one that was planned on: at another `version` of the object the API server refuses it, so that a plan on a
/// stale view, or of a second leader, is found out before it can move weights backwards or take anything away.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn write(
    client: &Client,
    own: &OwnWrites,
    subject: &Subject,
    version: Option<&str>,
    status: &ModelDeploymentStatus,
) -> Result<(), WriteError> {
    let api = Api::<ModelDeployment>::namespaced(client.clone(), &subject.namespace);
    // The UID keeps the status of an object that was deleted off its successor of the same name.
    let body = json!({
        "apiVersion": ModelDeployment::api_version(&()), "kind": ModelDeployment::kind(&()),
        "metadata": {"name": subject.name, "uid": subject.uid, "resourceVersion": version}, "status": status
    });
    own.sending(&subject.uid, status_hash(Some(status)));
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let patch = Patch::Apply(&body);
    let request = api.patch_status(&subject.name, &params, &patch);
    let answer = limited("status", "ModelDeployment", &subject.name, request).await?;
    own.written(&subject.uid, answer);
    Ok(())
}

/// The stored status with the news that a write is refused, so that a person sees it where they look. Nothing else of the stored status
/// changes: what the plan wanted to remember is not true yet.
pub fn with_refusal(
    stored: Option<&ModelDeploymentStatus>,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let mut status = stored.cloned().unwrap_or_default();
    let message: String = message.chars().take(1024).collect();
    let condition = status.conditions.iter_mut().find(|c| c.type_ == READY);
    match condition {
        Some(ready) => {
            if ready.status != "False" {
                ready.last_transition_time = Time(now);
            }
            ready.status = "False".into();
            ready.reason = WRITE_REFUSED.into();
            ready.message = message;
            ready.observed_generation = generation;
        }
        None => status.conditions.push(Condition {
            type_: READY.into(),
            status: "False".into(),
            reason: WRITE_REFUSED.into(),
            message,
            last_transition_time: Time(now),
            observed_generation: generation,
        }),
    }
    status
}

/// Statuses that wait, by UID: since when.
#[derive(Default)]
pub struct Waiting {
    since: Mutex<HashMap<String, Instant>>,
}

impl Waiting {
    /// How long a status of this object may still wait; nothing: write it now. The first call starts the clock.
    pub fn wait(&self, uid: &str, now: Instant) -> Option<Duration> {
        let mut all = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *all.entry(uid.to_owned()).or_insert(now);
        let left = MAY_WAIT.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero());
        if left.is_none() {
            all.remove(uid);
        }
        left
    }

    /// Nothing waits any more: it was written, or the difference went away, or the object.
    pub fn done(&self, uid: &str) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn fractions_of_seconds_are_no_difference() {
        let mut stored = with_refusal(None, "x", Some(1), at(5));
        let wanted = stored.clone();
        stored.conditions[0].last_transition_time = Time(at(5) + Duration::from_millis(300));
        assert!(!differs(Some(&stored), &wanted));
        assert!(differs(None, &wanted));
    }

    #[test]
    fn a_refusal_changes_only_the_summary_and_keeps_its_time() {
        let stored = ModelDeploymentStatus { replicas: 3, ..ModelDeploymentStatus::default() };
        let first = with_refusal(Some(&stored), "no", Some(1), at(5));
        assert_eq!((first.replicas, first.conditions.len()), (3, 1));
        let again = with_refusal(Some(&first), "no", Some(1), at(9));
        assert!(!differs(Some(&first), &again), "the same refusal is not written twice");
    }

    #[test]
    fn bursts_become_one_write() {
        let (waiting, start) = (Waiting::default(), Instant::now());
        assert_eq!(waiting.wait("u", start), Some(MAY_WAIT));
        assert_eq!(waiting.wait("u", start + Duration::from_millis(500)), Some(Duration::from_millis(1500)));
        assert_eq!(waiting.wait("u", start + MAY_WAIT), None);
        assert_eq!(waiting.wait("u", start + MAY_WAIT), Some(MAY_WAIT), "the clock starts anew");
    }
}
