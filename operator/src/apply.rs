//! Actions to API requests. No choice about rollouts is made here; what is decided is only whether an object is ours to write.

use std::fmt::Debug;
use std::future::Future;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Service;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use kube::core::{ObjectMeta, PartialObjectMeta};
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use slipway_core::action::{APPLIED, Action, Desired, Kind};
use slipway_core::build::{DIGEST_VARIABLE, FETCH, SERVER, is_shared};
use slipway_core::marks::Marks;
use slipway_crds::labels;

use crate::cache::{Owner, version_of};
use crate::children::{Awaited, Child, Expectation};
use crate::error::{Fault, WriteError};
use crate::views::Views;

/// Field manager of `spec.replicas` of ReplicaSets.
pub const SCALE_MANAGER: &str = "slipway-scale";
/// Field manager of the digest that a ReplicaSet's first pod told.
pub const DIGEST_MANAGER: &str = "slipway-digest";
/// Field manager of what ReplicaSets say of the past of their revisions.
pub const MARK_MANAGER: &str = "slipway-marks";
/// Field manager of the references to the owners of shared objects.
pub const OWNERS_MANAGER: &str = "slipway-owners";
/// How long one write may take, connection included.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// A resource version that no object has: the apply of an object that shall not exist yet. The API server creates it when it is
/// missing and answers 409 when it is there, so that a foreign object is never taken over by accident, at the price of no read.
const ABSENT: &str = "1";

/// Verb, kind and name of what an action writes, as they stand in its [`WriteError`].
pub fn target(action: &Action) -> String {
    let (verb, child, name) = match action {
        Action::Apply(desired) => ("apply", Child::from(&**desired), name_of(desired)),
        Action::Scale { name, .. } => ("scale", Child::ReplicaSet, name.clone()),
        Action::Pin { name, .. } => ("pin", Child::ReplicaSet, name.clone()),
        Action::Mark { name, .. } => ("mark", Child::ReplicaSet, name.clone()),
        Action::Delete { kind, name, .. } => ("delete", Child::from(*kind), name.clone()),
    };
    format!("{verb} {} {name}", child.kind())
}

fn name_of(desired: &Desired) -> String {
    match desired {
        Desired::ReplicaSet(o) => o.name_any(),
        Desired::Service(o) => o.name_any(),
        Desired::HorizontalPodAutoscaler(o) => o.name_any(),
        Desired::PodDisruptionBudget(o) => o.name_any(),
        Desired::ServiceAccount(o) => o.name_any(),
        Desired::RoleBinding(o) => o.name_any(),
        Desired::Deployment(o) => o.name_any(),
    }
}

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
    /// Turns at shared objects.
    pub turns: &'a Turns,
}

/// Turns at the shared objects of a namespace.
#[derive(Default)]
pub struct Turns {
    /// Namespaces that fall together only wait for each other a little.
    shards: [tokio::sync::Mutex<()>; 16],
}

impl Turns {
    async fn take(&self, namespace: &str) -> tokio::sync::MutexGuard<'_, ()> {
        let sum = namespace.bytes().fold(0_usize, |sum, b| sum.wrapping_mul(31).wrapping_add(b.into()));
        self.shards[sum % self.shards.len()].lock().await
    }
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
            Action::Pin { name, uid, digest } => self.pin(name, uid, digest).await,
            Action::Mark { name, uid, marks } => self.mark(name, uid, marks).await,
            Action::Delete { kind, name, uid } => self.delete(*kind, name, uid).await,
        }
    }

    async fn apply(&self, desired: &Desired) -> Result<Expectation, WriteError> {
        let write = Write { child: Child::from(desired), shared: is_shared(desired) };
        match desired {
            Desired::ReplicaSet(o) => self.apply_one(&write, o).await,
            Desired::Service(o) => self.apply_one(&write, o).await,
            Desired::HorizontalPodAutoscaler(o) => self.apply_one(&write, o).await,
            Desired::PodDisruptionBudget(o) if write.shared => self.share(&write, o).await,
            Desired::PodDisruptionBudget(o) => self.apply_one(&write, o).await,
            Desired::ServiceAccount(o) => self.share(&write, o).await,
            Desired::RoleBinding(o) => self.share(&write, o).await,
            Desired::Deployment(o) if write.shared => self.share(&write, o).await,
            Desired::Deployment(o) => self.apply_one(&write, o).await,
        }
    }

    async fn apply_one<K>(&self, write: &Write, desired: &K) -> Result<Expectation, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let body = body_of(desired).map_err(|fault| write.error(&desired.name_any(), fault))?;
        let answer = self.put::<K>(write, &desired.name_any(), body).await?;
        Ok(self.expect_version(write, &answer))
    }

    /// An object that all ModelDeployments of a namespace own: its content is applied like any other, by one field manager for all of them, and the
    /// reference of each owner is merged in by its UID. A field manager for each owner would be the other way, and does not bear many of them: every
    /// manager adds its list of fields to the object, and every write is compared with all of them (a hundred owners made writes take longer than
    /// ten seconds); besides, what the manager of an owner that is gone once applied could never be removed.
    async fn share<K>(&self, write: &Write, desired: &K) -> Result<Expectation, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let name = desired.name_any();
        // Many owners that come at one time would only make each other's writes start again.
        let _turn = self.turns.take(&self.subject.namespace).await;
        let known = self.views.known(write.child, &self.owner(write), &name);
        let wanted = desired.annotations().get(APPLIED);
        let uid = match known.filter(|known| Some(&known.applied) == wanted) {
            Some(known) => Some(known.uid),
            None => {
                let mut content = body_of(desired).map_err(|fault| write.error(&name, fault))?;
                if let Some(metadata) = content["metadata"].as_object_mut() {
                    metadata.remove("ownerReferences");
                }
                self.put::<K>(write, &name, content).await?.metadata.uid
            }
        };
        let reference = json!({"metadata": {"uid": uid, "ownerReferences": desired.owner_references()}});
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        let params = PatchParams { field_manager: Some(OWNERS_MANAGER.into()), ..PatchParams::default() };
        let merge = Patch::Strategic(&reference);
        let answer = limited("own", write.child.kind(), &name, api.patch_metadata(&name, &params, &merge)).await?;
        Ok(self.expect_version(write, &answer))
    }

    /// Applies an object that is there and ours, or makes it where there is none.
    async fn put<K>(&self, write: &Write, name: &str, mut body: Value) -> Result<PartialObjectMeta<K>, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        if let Some(known) = self.views.known(write.child, &self.owner(write), name) {
            if !self.is_ours(write, &known.owners) {
                let fault = Fault::Foreign(format!("its owner has UID {}", known.owners.join(", ")));
                return Err(write.error(name, fault));
            }
            body["metadata"]["uid"] = known.uid.into();
            return patch(&api, write, name, &body).await;
        }
        let mut made = body.clone();
        made["metadata"]["resourceVersion"] = ABSENT.into();
        match patch(&api, write, name, &made).await {
            // It is there although the caches do not show it: they are behind, or it is not ours.
            Err(WriteError { fault: Fault::Conflict(_), .. }) => {
                let there = limited("get", write.child.kind(), name, api.get_metadata(name)).await?;
                self.check_ours(write, &there.metadata).map_err(|fault| write.error(name, fault))?;
                body["metadata"]["uid"] = there.metadata.uid.into();
                patch(&api, write, name, &body).await
            }
            other => other,
        }
    }

    fn expect_version<K>(&self, write: &Write, answer: &PartialObjectMeta<K>) -> Expectation
    where
        K: Resource<DynamicType = ()>,
    {
        let awaited = Awaited::Version(version_of(answer));
        Expectation { child: write.child, owner: self.owner(write), name: answer.name_any(), awaited }
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

    /// A merge and no apply: the content of the ReplicaSet is known only while the spec is of its revision.
    async fn pin(&self, name: &str, uid: &str, digest: &str) -> Result<Expectation, WriteError> {
        let container = |name| json!({"name": name, "env": [{"name": DIGEST_VARIABLE, "value": digest}]});
        let body = json!({
            "metadata": {"uid": uid, "annotations": {labels::MODEL_DIGEST: digest}},
            "spec": {"template": {"spec": {"containers": [container(SERVER)], "initContainers": [container(FETCH)]}}}
        });
        self.merge("pin", name, DIGEST_MANAGER, &body).await
    }

    async fn mark(&self, name: &str, uid: &str, marks: &Marks) -> Result<Expectation, WriteError> {
        let annotations: Map<_, _> =
            marks.annotations().into_iter().map(|(key, value)| (key.to_owned(), json!(value))).collect();
        self.merge("mark", name, MARK_MANAGER, &json!({"metadata": {"uid": uid, "annotations": annotations}})).await
    }

    /// Merges a change into a ReplicaSet.
    async fn merge(
        &self,
        verb: &'static str,
        name: &str,
        manager: &str,
        body: &Value,
    ) -> Result<Expectation, WriteError> {
        let api = Api::<ReplicaSet>::namespaced(self.client.clone(), &self.subject.namespace);
        let params = PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
        let answer =
            limited(verb, "ReplicaSet", name, api.patch_metadata(name, &params, &Patch::Strategic(body))).await?;
        let awaited = Awaited::Version(version_of(&answer));
        Ok(Expectation { child: Child::ReplicaSet, owner: self.own(), name: name.to_owned(), awaited })
    }

    async fn delete(&self, kind: Kind, name: &str, uid: &str) -> Result<Expectation, WriteError> {
        let result = match kind {
            Kind::ReplicaSet => self.delete_one::<ReplicaSet>(kind, name, uid).await,
            Kind::Service => self.delete_one::<Service>(kind, name, uid).await,
            Kind::HorizontalPodAutoscaler => self.delete_one::<HorizontalPodAutoscaler>(kind, name, uid).await,
            Kind::Deployment => self.delete_one::<Deployment>(kind, name, uid).await,
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
    /// Belongs to all ModelDeployments of the namespace.
    shared: bool,
}

impl Write {
    fn error(&self, name: &str, fault: Fault) -> WriteError {
        WriteError { verb: "apply", kind: self.child.kind(), name: name.to_owned(), fault }
    }
}

fn body_of(desired: &impl Serialize) -> Result<Value, Fault> {
    serde_json::to_value(desired).map_err(|e| Fault::Transport(Box::new(kube::Error::SerdeError(e))))
}

async fn patch<K>(api: &Api<K>, write: &Write, name: &str, body: &Value) -> Result<PartialObjectMeta<K>, WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let params = PatchParams::apply(labels::MANAGER).force();
    limited("apply", write.child.kind(), name, api.patch_metadata(name, &params, &Patch::Apply(body))).await
}
