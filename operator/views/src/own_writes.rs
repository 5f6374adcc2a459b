//! Status writes of this process that the watch may not have reported yet. A plan from a status
//! older than the last written one would repeat transitions: start a step twice, count an
//! evaluation twice, publish an event twice.

use std::collections::HashMap;

use kube::ResourceExt;
use parking_lot::Mutex;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::cache::{ObjectOwner, version_of};
use crate::model_memory::ModelMemory;

#[derive(Default)]
struct LastStatusWrite {
    /// Hash of the status that was sent last. Recorded before sending, because the watch may be
    /// faster than the answer.
    sent: Option<u64>,
    /// The answer to the last write, until the store is as new.
    answer: Option<ModelDeployment>,
}

/// The last status write of each ModelDeployment, by UID.
#[derive(Default)]
pub struct OwnWrites {
    by_uid: Mutex<HashMap<String, LastStatusWrite>>,
}

impl OwnWrites {
    /// Records that a status is about to be sent.
    pub fn record_sent(&self, uid: &str, status: u64) {
        self.by_uid.lock().entry(uid.to_owned()).or_default().sent = Some(status);
    }

    /// Stores the server's answer to a write.
    pub fn record_answer(&self, uid: &str, answer: ModelDeployment) {
        self.by_uid.lock().entry(uid.to_owned()).or_default().answer = Some(answer);
    }

    /// Whether the status with this hash is the one that was sent last.
    pub fn is_own(&self, uid: &str, status: u64) -> bool {
        self.by_uid.lock().get(uid).is_some_and(|own| own.sent == Some(status))
    }

    /// The newer of the stored object and the answer to the last write.
    pub fn newest(&self, stored: &ModelDeployment) -> ModelDeployment {
        let mut all = self.by_uid.lock();
        let own = stored.uid().and_then(|uid| all.get_mut(&uid));
        match own {
            Some(LastStatusWrite { answer: Some(answer), .. })
                if version_of(answer) > version_of(stored) =>
            {
                answer.clone()
            }
            Some(own) => {
                own.answer = None;
                stored.clone()
            }
            None => stored.clone(),
        }
    }
}

impl ModelMemory for OwnWrites {
    fn forget(&self, uid: &str, _: &ObjectOwner) {
        self.by_uid.lock().remove(uid);
    }

    fn remembers(&self, uid: &str, _: &ObjectOwner) -> bool {
        self.by_uid.lock().contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object(uid: &str, version: u64, replicas: i32) -> ModelDeployment {
        serde_json::from_value(json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment",
            "metadata": {"name": "m", "namespace": "ns", "uid": uid, "resourceVersion": version.to_string()},
            "spec": {"model": {"uri": "http://store/m"}},
            "status": {"replicas": replicas, "selector": ""}
        }))
        .unwrap()
    }

    fn replicas(own: &OwnWrites, stored: &ModelDeployment) -> i32 {
        own.newest(stored).status.unwrap().replicas
    }

    #[test]
    fn a_stale_store_never_hides_our_own_write() {
        let own = OwnWrites::default();
        own.record_answer("u", object("u", 9, 2));
        assert_eq!(replicas(&own, &object("u", 5, 1)), 2, "the store is older: our answer stands");
        assert_eq!(replicas(&own, &object("u", 10, 3)), 3, "the store is newer");
        assert_eq!(
            replicas(&own, &object("u", 9, 4)),
            4,
            "the answer was dropped once the store was as new"
        );
        assert_eq!(
            replicas(&own, &object("another", 1, 5)),
            5,
            "an object that was made again is another object"
        );
    }
}
