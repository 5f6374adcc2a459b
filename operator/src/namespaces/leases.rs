//! Determines which of several operators in a cluster manages a namespace: the holder of the Lease
//! `slipway-modeldeployments` in it. The first operator takes the Lease, and the others change
//! nothing in that namespace. A stopped operator loses the Lease after half an hour, or as soon as
//! another holder is written into it.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::runtime::watcher::Event;
use kube::{Api, Client, Resource, ResourceExt};
use parking_lot::RwLock;
use slipway_cluster_views::{ObjectOwner, version_of};
use slipway_crds::labels;
use slipway_objects::{GATEWAY, ManagedKind};
use tokio::sync::watch;

use crate::apply::{WriteError, WriteFault, with_timeout};
use crate::namespaces::lease_object::{
    LEASE_NAME, NamespaceHolder, RENEW_AFTER, namespace_holder, renewed_lease,
};
use crate::watch::context::WatchContext;

/// The Leases of all namespaces, as they were last seen or written.
pub struct NamespaceLeases {
    identity: String,
    known: RwLock<HashMap<String, Lease>>,
    synced: watch::Sender<bool>,
}

impl NamespaceLeases {
    /// Creates the store for the operator `own`. All its processes share this name: namespace and
    /// name of their leader Lease.
    pub fn new(own: String) -> Self {
        Self { identity: own, known: RwLock::default(), synced: watch::Sender::new(false) }
    }

    /// The name of this operator in Leases.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns when all Leases that existed at the start are known.
    pub async fn wait_until_synced(&self) {
        // The wait cannot fail: the sender lives as long as `self`.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// The holder of a namespace.
    pub fn holder(&self, namespace: &str, now: Timestamp) -> NamespaceHolder {
        let known = self.known.read();
        namespace_holder(known.get(namespace), &self.identity, now)
    }

    /// Takes the Lease of a namespace that has no holder; the Lease is deleted with `owner`.
    /// Returns the holder when it is another operator.
    ///
    /// # Errors
    /// When the API server rejects the request or does not answer.
    pub async fn acquire(
        &self,
        client: &Client,
        namespace: &str,
        owner: Option<OwnerReference>,
    ) -> Result<Option<String>, WriteError> {
        match self.holder(namespace, Timestamp::now()) {
            NamespaceHolder::ThisOperator(_) => return Ok(None),
            NamespaceHolder::OtherOperator(holder) => return Ok(Some(holder)),
            NamespaceHolder::Unclaimed => {}
        }
        let conflict = match self.write_lease(client, namespace, owner).await {
            Ok(()) => {
                tracing::info!(
                    namespace,
                    holder = self.identity,
                    "this operator looks after the namespace"
                );
                return Ok(None);
            }
            Err(error)
                if matches!(error.fault, WriteFault::Conflict(_) | WriteFault::NotFound(_)) =>
            {
                error
            }
            Err(error) => return Err(error),
        };
        // Another operator, or another reconcile of this operator, wrote the Lease first.
        let api = Api::<Lease>::namespaced(client.clone(), namespace);
        match with_timeout("get", "Lease", LEASE_NAME, api.get_opt(LEASE_NAME)).await? {
            Some(lease) => self.store_lease(lease),
            None => self.remove_lease(namespace),
        }
        match self.holder(namespace, Timestamp::now()) {
            NamespaceHolder::ThisOperator(_) => Ok(None),
            NamespaceHolder::OtherOperator(holder) => Ok(Some(holder)),
            NamespaceHolder::Unclaimed => Err(conflict),
        }
    }

    /// Writes the Lease with this operator as the holder: creates it, or replaces exactly the known
    /// version.
    async fn write_lease(
        &self,
        client: &Client,
        namespace: &str,
        owner: Option<OwnerReference>,
    ) -> Result<(), WriteError> {
        let before = self.known.read().get(namespace).cloned();
        let lease =
            renewed_lease(before.as_ref(), &self.identity, namespace, owner, Timestamp::now());
        let api = Api::<Lease>::namespaced(client.clone(), namespace);
        let params =
            PostParams { field_manager: Some(labels::MANAGER.to_owned()), ..PostParams::default() };
        let written = match before {
            Some(_) => {
                with_timeout(
                    "update",
                    "Lease",
                    LEASE_NAME,
                    api.replace(LEASE_NAME, &params, &lease),
                )
                .await?
            }
            None => {
                with_timeout("create", "Lease", LEASE_NAME, api.create(&params, &lease)).await?
            }
        };
        self.store_lease(written);
        Ok(())
    }

    /// Stores a Lease, unless a newer version is known.
    fn store_lease(&self, lease: Lease) {
        let mut known = self.known.write();
        let namespace = lease.namespace().unwrap_or_default();
        let newer = known
            .get(&namespace)
            .is_some_and(|it| version_of(it) > version_of(&lease) && it.uid() == lease.uid());
        if !newer {
            known.insert(namespace, lease);
        }
    }

    fn remove_lease(&self, namespace: &str) {
        self.known.write().remove(namespace);
    }

    /// Applies the events of a watch until it ends.
    pub(crate) async fn follow_events(&self, events: impl futures::Stream<Item = Event<Lease>>) {
        let (mut events, mut listed) = (pin!(events), BTreeSet::new());
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(lease) => {
                    listed.insert(lease.namespace().unwrap_or_default());
                    self.store_lease(lease);
                }
                Event::InitDone => {
                    self.known.write().retain(|it, _| listed.contains(it));
                    self.synced.send_replace(true);
                }
                Event::Apply(lease) => self.store_lease(lease),
                Event::Delete(lease) => self.remove_lease(&lease.namespace().unwrap_or_default()),
            }
        }
    }

    /// Renews a Lease that is due, and makes the gateway's ServiceAccount its owner, so that both
    /// are deleted together.
    pub(crate) async fn renew_if_due(
        &self,
        ctx: &WatchContext,
        namespace: &str,
        since: Timestamp,
        now: Timestamp,
    ) {
        let account = ctx
            .views
            .known_object(ManagedKind::ServiceAccount, &ObjectOwner::gateway(namespace), GATEWAY)
            .map(|it| it.uid);
        let owner = self
            .known
            .read()
            .get(namespace)
            .and_then(|lease| lease.owner_references().first().map(|owner| owner.uid.clone()));
        let adopt = account.is_some() && account != owner;
        if !adopt && now.duration_since(since) < RENEW_AFTER {
            return;
        }
        let owner = account.map(|uid| OwnerReference {
            api_version: ServiceAccount::api_version(&()).into_owned(),
            kind: ServiceAccount::kind(&()).into_owned(),
            name: GATEWAY.to_owned(),
            uid,
            ..OwnerReference::default()
        });
        match self.write_lease(&ctx.client, namespace, owner).await {
            Ok(()) => {}
            // The watch reports its current state.
            Err(error) => {
                tracing::warn!(namespace, %error, "the Lease of a namespace is not renewed: it is tried again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn lease(holder: &str, renewed: &str) -> Lease {
        let object = serde_json::json!({
            "metadata": {"name": LEASE_NAME, "namespace": "lab", "resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 1800, "renewTime": renewed, "leaseTransitions": 2}
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn an_older_lease_of_the_watch_takes_no_newer_ones_place() {
        let leases = NamespaceLeases::new("a".into());
        let of = |holder: &str, version: &str| {
            let mut lease = lease(holder, NOW);
            lease.metadata.resource_version = Some(version.into());
            lease
        };
        leases.store_lease(of("a", "12"));
        leases.store_lease(of("b", "11"));
        let now: Timestamp = NOW.parse().unwrap();
        assert!(matches!(leases.holder("lab", now), NamespaceHolder::ThisOperator(_)));
        leases.store_lease(of("b", "13"));
        assert_eq!(leases.holder("lab", now), NamespaceHolder::OtherOperator("b".into()));
        leases.remove_lease("lab");
        assert_eq!(leases.holder("lab", now), NamespaceHolder::Unclaimed);
    }
}
