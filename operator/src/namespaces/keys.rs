//! The Secret with the keys of a namespace. The operator creates it where it is missing and never
//! reads it, so that the operator's token gives no access to its content.
//!
//! Users who want other keys create or replace the Secret of this name themselves. It is deleted
//! with the gateway, whose ServiceAccount owns it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::{Api, Resource};
use parking_lot::Mutex;
use slipway_core::refusal::WriteTarget;
use slipway_crds::labels;
use slipway_objects::{GATEWAY, KEYS, KEYS_FILES, ManagedKind};

use crate::apply::{ActionApplier, WriteError, WriteFault, with_timeout};

/// After it was there it is not asked for again for so long: somebody may delete it.
const RECHECK_INTERVAL: Duration = Duration::from_secs(60);

/// What is written to.
pub fn keys_target() -> WriteTarget {
    WriteTarget { verb: "create", kind: "Secret", name: KEYS.to_owned() }
}

/// When the Secret of each namespace was last known to be there.
#[derive(Default)]
pub struct NamespaceKeys {
    last_seen: Mutex<HashMap<String, Instant>>,
}

impl NamespaceKeys {
    /// Creates the Secret of the namespace where it is missing. Before the gateway's ServiceAccount
    /// exists there is no owner for the Secret, so nothing is created.
    ///
    /// # Errors
    /// When the API server rejects the request or does not answer.
    pub async fn ensure(&self, applier: &ActionApplier<'_>) -> Result<(), WriteError> {
        let namespace = &applier.subject.namespace;
        if self.was_seen(namespace, Instant::now()) {
            return Ok(());
        }
        let Some(owner) = applier.shared_uid(ManagedKind::ServiceAccount).await else {
            return Ok(());
        };
        let secret = build_secret(namespace, owner, rand::random(), rand::random());
        let api = Api::<Secret>::namespaced(applier.client.clone(), namespace);
        let params =
            PostParams { field_manager: Some(labels::MANAGER.to_owned()), ..PostParams::default() };
        match with_timeout("create", "Secret", KEYS, api.create(&params, &secret)).await {
            Ok(_) => tracing::info!(namespace, "keys made"),
            Err(WriteError { fault: WriteFault::Conflict(_), .. }) => {}
            Err(error) => return Err(error),
        }
        let mut there = self.last_seen.lock();
        there.retain(|_, at| at.elapsed() < RECHECK_INTERVAL);
        there.insert(namespace.clone(), Instant::now());
        Ok(())
    }

    fn was_seen(&self, namespace: &str, now: Instant) -> bool {
        let there = self.last_seen.lock();
        there.get(namespace).is_some_and(|at| now.saturating_duration_since(*at) < RECHECK_INTERVAL)
    }
}

fn build_secret(namespace: &str, owner: String, master: [u8; 32], token: [u8; 32]) -> Secret {
    let labels = [
        (labels::MANAGED_BY, labels::MANAGER),
        (labels::PART_OF, GATEWAY),
        (labels::COMPONENT, labels::COMPONENT_GATEWAY),
    ];
    let owner = OwnerReference {
        api_version: ServiceAccount::api_version(&()).into_owned(),
        kind: ServiceAccount::kind(&()).into_owned(),
        name: GATEWAY.to_owned(),
        uid: owner,
        ..OwnerReference::default()
    };
    // Users type and paste the token.
    let values = [master.to_vec(), URL_SAFE_NO_PAD.encode(token).into_bytes()];
    Secret {
        metadata: ObjectMeta {
            name: Some(KEYS.to_owned()),
            namespace: Some(namespace.to_owned()),
            labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        },
        type_: Some("Opaque".to_owned()),
        data: Some(KEYS_FILES.map(str::to_owned).into_iter().zip(values.map(ByteString)).collect()),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_of_the_form_that_gateways_read() {
        let secret = build_secret("lab", "uid".into(), [7; 32], [8; 32]);
        let data = secret.data.unwrap();
        assert_eq!((data["master"].0.len(), data["token"].0.len()), (32, 43));
        assert!(data["token"].0.is_ascii());
        assert_eq!(secret.metadata.owner_references.unwrap()[0].uid, "uid");
    }

    #[test]
    fn what_was_there_lately_is_not_asked_for() {
        let (keys, now) = (NamespaceKeys::default(), Instant::now());
        keys.last_seen.lock().insert("lab".into(), now);
        assert!(keys.was_seen("lab", now) && !keys.was_seen("other", now));
        assert!(!keys.was_seen("lab", now + RECHECK_INTERVAL));
    }
}
