//! The status: written whole by server-side apply on the subresource, only when it differs from the
//! stored one.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use kube::{Api, Client, Resource};
use serde_json::json;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};

use crate::apply::{ModelIdentity, with_timeout};
use crate::error::WriteError;
use crate::model_watch::status_hash;
use crate::own_writes::OwnWrites;

/// Field manager of the status.
pub const STATUS_MANAGER: &str = "slipway-status";
/// How long a status may wait whose difference is only in counts of pods, so that a burst of
/// changes becomes one write.
pub const MAX_STATUS_DELAY: Duration = Duration::from_secs(2);

/// Whether two statuses differ on the wire.
pub fn status_differs(
    stored: Option<&ModelDeploymentStatus>,
    wanted: &ModelDeploymentStatus,
) -> bool {
    status_hash(stored) != status_hash(Some(wanted))
}

/// Writes the status over the one that was planned on: at another `version` of the object the API
/// server refuses it, so that a plan on a stale view, or of a second leader, is found out before it
/// can move weights backwards or take anything away.
///
/// # Errors
/// When the API server refuses or does not answer.
pub async fn apply_status(
    client: &Client,
    own: &OwnWrites,
    subject: &ModelIdentity,
    version: Option<&str>,
    status: &ModelDeploymentStatus,
) -> Result<(), WriteError> {
    let api = Api::<ModelDeployment>::namespaced(client.clone(), &subject.namespace);
    // The UID keeps the status of an object that was deleted off its successor of the same name.
    let body = json!({
        "apiVersion": ModelDeployment::api_version(&()), "kind": ModelDeployment::kind(&()),
        "metadata": {"name": subject.name, "uid": subject.uid, "resourceVersion": version}, "status": status
    });
    own.record_sent(&subject.uid, status_hash(Some(status)));
    let params = PatchParams::apply(STATUS_MANAGER).force();
    let patch = Patch::Apply(&body);
    let request = api.patch_status(&subject.name, &params, &patch);
    let answer = with_timeout("status", "ModelDeployment", &subject.name, request).await?;
    own.record_answer(&subject.uid, answer);
    Ok(())
}

/// Statuses that wait, by UID: since when.
#[derive(Default)]
pub struct StatusDebounce {
    since: Mutex<HashMap<String, Instant>>,
}

impl StatusDebounce {
    /// How long a status of this object may still wait; nothing: write it now. The first call
    /// starts the clock.
    pub fn time_left(&self, uid: &str, now: Instant) -> Option<Duration> {
        let mut all = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let since = *all.entry(uid.to_owned()).or_insert(now);
        let left =
            MAX_STATUS_DELAY.checked_sub(now.duration_since(since)).filter(|left| !left.is_zero());
        if left.is_none() {
            all.remove(uid);
        }
        left
    }

    /// Nothing waits any more: it was written, or the difference went away, or the object.
    pub fn clear(&self, uid: &str) {
        self.since.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use slipway_crds::v1alpha1::TrafficStatus;

    use super::*;

    #[test]
    fn fractions_of_seconds_are_no_difference() {
        let status = |millisecond: i64| {
            let at = Timestamp::from_millisecond(5000 + millisecond).unwrap();
            let time = TrafficStatus { confirmed_time: Some(Time(at)), ..TrafficStatus::default() };
            ModelDeploymentStatus { traffic: Some(time), ..ModelDeploymentStatus::default() }
        };
        assert!(!status_differs(Some(&status(0)), &status(300)));
        assert!(status_differs(None, &status(0)));
    }

    #[test]
    fn bursts_become_one_write() {
        let (waiting, start) = (StatusDebounce::default(), Instant::now());
        assert_eq!(waiting.time_left("u", start), Some(MAX_STATUS_DELAY));
        assert_eq!(
            waiting.time_left("u", start + Duration::from_millis(500)),
            Some(Duration::from_millis(1500))
        );
        assert_eq!(waiting.time_left("u", start + MAX_STATUS_DELAY), None);
        assert_eq!(
            waiting.time_left("u", start + MAX_STATUS_DELAY),
            Some(MAX_STATUS_DELAY),
            "the clock starts anew"
        );
    }
}
