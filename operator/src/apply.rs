//! Actions to API requests. No choice about rollouts is made here; what is decided is only whether an object is ours to write.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_core::action::{Action, Desired, Kind};
use slipway_core::build::field_manager;
use slipway_crds::labels;

use crate::cache::{Owner, version_of};
use crate::children::{Awaited, Child, Expectation};
use crate::error::{Fault, WriteError};
use crate::views::Views;

/// Field manager of `spec.replicas` of ReplicaSets.
pub const SCALE_MANAGER: &str = "slipway-scale";
/// How long one write may take, connection included.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A resource version that no object has: the apply of an object that shall not exist yet. The API server creates it when it is
/// missing and answers 409 when it is there, so that a foreign object is never taken over by accident, at the price of no read.
const ABSENT: &str = "1";

/// The ModelDeployment on whose behalf is written.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// Carries actions out.
pub struct Applier<'a> {
    /// Client.
    pub client: &'a Client,
    /// What is known of the objects.
    pub views: &'a Views,
    /// On whose behalf.
    pub subject: &'a Subject,
}

/// Runs one request with a time limit and names the write in its error.
pub async fn limited<T>(
    verb: &'static str,
    kind: &'static str,
    name: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, WriteError> {
    let answer = tokio::time::timeout(WRITE_TIMEOUT, request).await;
    let fault = match answer {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => Fault::from(error),
        Err(_) => Fault::Timeout(WRITE_TIMEOUT),
    };
    Err(WriteError { verb, kind, name: name.to_owned(), fault })
}

impl Applier<'_> {
    /// Carries out one action; says what the watch shall bring back.
    ///
    /// # Errors
    /// When the API server refuses or does not answer, or when the object belongs to somebody else.
    pub async fn carry_out(&self, action: &Action) -> Result<Expectation, WriteError> {
        match action {
            Action::Apply(desired) => self.apply(desired).await,
            Action::Scale { name, uid, replicas } => self.scale(name, uid, *replicas).await,
            Action::Delete { kind, name, uid } => self.delete(*kind, name, uid).await,
        }
    }

    async fn apply(&self, desired: &Desired) -> Result<Expectation, WriteError> {
        let write = Write {
            child: Child::from(desired),
            manager: field_manager(desired, &self.subject.uid),
            shared: field_manager(desired, &self.subject.uid) != labels::MANAGER,
        };
        match desired {
            Desired::ReplicaSet(o) => self.apply_one(&write, o).await,
            Desired::Service(o) => self.apply_one(&write, o).await,
            Desired::HorizontalPodAutoscaler(o) => self.apply_one(&write, o).await,
            Desired::PodDisruptionBudget(o) => self.apply_one(&write, o).await,
            Desired::ServiceAccount(o) => self.apply_one(&write, o).await,
            Desired::RoleBinding(o) => self.apply_one(&write, o).await,
            Desired::Deployment(o) => self.apply_one(&write, o).await,
        }
    }

    async fn apply_one<K>(&self, write: &Write, desired: &K) -> Result<Expectation, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        let (name, owner) = (desired.name_any(), self.owner(write));
        let refused = |fault| WriteError { verb: "apply", kind: write.child.kind(), name: name.clone(), fault };
        let uid = match self.views.known(write.child, &owner, &name) {
            Some(known) if self.is_ours(write, &known.owners) => Some(known.uid),
            Some(known) => {
                return Err(refused(Fault::Foreign(format!("its owner has UID {}", known.owners.join(", ")))));
            }
            None => None,
        };
        let body = |uid: &Option<String>| body_of(desired, uid.as_deref()).map_err(&refused);
        let answer = match patch(&api, write, &name, &body(&uid)?).await {
            // It is there although the caches do not show it: they are behind, or it is not ours.
            Err(WriteError { fault: Fault::Conflict(_), .. }) if uid.is_none() => {
                let there = limited("get", write.child.kind(), &name, api.get_metadata(&name)).await?;
                self.check_ours(write, &there.metadata).map_err(&refused)?;
                patch(&api, write, &name, &body(&there.metadata.uid)?).await?
            }
            other => other?,
        };
        Ok(Expectation { child: write.child, owner, name, awaited: Awaited::Version(version_of(&answer)) })
    }

    async fn scale(&self, name: &str, uid: &str, replicas: i32) -> Result<Expectation, WriteError> {
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &self.subject.namespace);
        let body = json!({
            "apiVersion": ReplicaSet::api_version(&()), "kind": ReplicaSet::kind(&()),
            "metadata": {"name": name, "uid": uid}, "spec": {"replicas": replicas}
        });
        let params = PatchParams::apply(SCALE_MANAGER).force();
        let answer =
            limited("scale", "ReplicaSet", name, api.patch_metadata(name, &params, &Patch::Apply(&body))).await?;
        let awaited = Awaited::Version(version_of(&answer));
        Ok(Expectation { child: Child::ReplicaSet, owner: self.own(), name: name.to_owned(), awaited })
    }

    async fn delete(&self, kind: Kind, name: &str, uid: &str) -> Result<Expectation, WriteError> {
        let result = match kind {
            Kind::ReplicaSet => self.delete_one::<ReplicaSet>(kind, name, uid).await,
            Kind::Service => self.delete_one::<Service>(kind, name, uid).await,
            Kind::HorizontalPodAutoscaler => self.delete_one::<HorizontalPodAutoscaler>(kind, name, uid).await,
        };
        match result {
            Ok(()) | Err(WriteError { fault: Fault::NotFound(_), .. }) => Ok(Expectation {
                child: Child::from(kind),
                owner: self.own(),
                name: name.to_owned(),
                awaited: Awaited::Gone(uid.to_owned()),
            }),
            Err(error) => Err(error),
        }
    }

    async fn delete_one<K>(&self, kind: Kind, name: &str, uid: &str) -> Result<(), WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        limited("delete", Child::from(kind).kind(), name, api.delete(name, &params)).await.map(drop)
    }

    fn own(&self) -> Owner {
        Owner::model(&self.subject.namespace, &self.subject.name)
    }

    fn owner(&self, write: &Write) -> Owner {
        if write.shared { Owner::gateway(&self.subject.namespace) } else { self.own() }
    }

    /// An object without owners was let go on purpose (`--cascade=orphan`) and still carries our labels: it is taken back.
    fn is_ours(&self, write: &Write, owners: &[String]) -> bool {
        write.shared || owners.is_empty() || owners.contains(&self.subject.uid)
    }

    fn check_ours(&self, write: &Write, there: &ObjectMeta) -> Result<(), Fault> {
        let has = |key: &str, value: &str| there.labels.as_ref().and_then(|l| l.get(key)).is_some_and(|v| v == value);
        let labelled = has(labels::MANAGED_BY, labels::MANAGER)
            && if write.shared {
                has(labels::COMPONENT, labels::COMPONENT_GATEWAY)
            } else {
                has(labels::MODEL_DEPLOYMENT, &self.subject.name)
            };
        if !labelled {
            return Err(Fault::Foreign("it lacks our labels".into()));
        }
        let owners: Vec<String> = there.owner_references.iter().flatten().map(|o| o.uid.clone()).collect();
        if self.is_ours(write, &owners) {
            return Ok(());
        }
        Err(Fault::Foreign(format!("its owner has UID {}", owners.join(", "))))
    }
}

struct Write {
    child: Child,
    manager: String,
    /// Belongs to all ModelDeployments of the namespace.
    shared: bool,
}

/// The object as it is sent: with the UID of the object that it changes, or with the demand that there is none.
fn body_of(desired: &impl Serialize, uid: Option<&str>) -> Result<Value, Fault> {
    let mut body = serde_json::to_value(desired).map_err(|e| Fault::Transport(Box::new(kube::Error::SerdeError(e))))?;
    match uid {
        Some(uid) => body["metadata"]["uid"] = uid.into(),
        None => body["metadata"]["resourceVersion"] = ABSENT.into(),
    }
    Ok(body)
}

async fn patch<K>(api: &Api<K>, write: &Write, name: &str, body: &Value) -> Result<PartialObjectMeta<K>, WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let params = PatchParams::apply(&write.manager).force();
    limited("apply", write.child.kind(), name, api.patch_metadata(name, &params, &Patch::Apply(body))).await
}
