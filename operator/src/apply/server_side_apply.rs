//! Applies whole objects: creates missing ones, restores changed ones, and never overwrites an
//! object of another owner.

use std::fmt::Debug;
use std::time::Instant;

use k8s_openapi::NamespaceResourceScope;
use kube::api::{Patch, PatchParams};
use kube::core::ObjectMeta;
use kube::{Api, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use slipway_cluster_views::{KnownObject, OWNERS_MANAGER, ObjectOwner, version_of};
use slipway_core::fields;
use slipway_crds::labels;
use slipway_objects::desired::DesiredObject;
use slipway_objects::{GATEWAY, ManagedKind, is_shared, with_kind_type};

use crate::apply::applier::{ActionApplier, ApplyOutcome};
use crate::apply::error::{WriteError, WriteFault};
use crate::apply::expectation::{AwaitedState, WriteExpectation};
use crate::apply::hand_over;
use crate::apply::locks::LastApply;
use crate::apply::overrides::find_overridden;
use crate::apply::request::with_timeout;

/// A resource version that no object has, for the apply of an object that must not exist yet. The
/// API server creates a missing object and answers 409 when it exists. A foreign object is thus
/// never taken over by accident, and no read is needed.
const ABSENT_VERSION: &str = "1";

/// One object to write.
struct ObjectWrite<'a> {
    child: ManagedKind,
    /// All ModelDeployments of the namespace share the object.
    shared: bool,
    desired: &'a DesiredObject,
    /// The write restores a change of another client: there is nothing to do if the change is
    /// already reverted.
    restoring: bool,
}

impl ObjectWrite<'_> {
    fn error(&self, fault: WriteFault) -> WriteError {
        WriteError {
            verb: "apply",
            kind: self.child.kind_name(),
            name: self.desired.name().to_owned(),
            fault,
        }
    }
}

/// The API server's answer to an apply.
struct ApplyAnswer {
    uid: String,
    version: u64,
    overridden: Option<String>,
    /// Content was sent, not only labels.
    has_content: bool,
}

impl ActionApplier<'_> {
    /// Applies an object; `restoring` is true when another client has changed it.
    pub(crate) async fn apply(
        &self,
        desired: &DesiredObject,
        restoring: bool,
    ) -> Result<ApplyOutcome, WriteError> {
        let (child, shared) = (desired.kind(), is_shared(desired));
        let write = ObjectWrite { child, shared, desired, restoring };
        with_kind_type!(child, K => self.write_object::<K>(&write).await)
    }

    /// The UID of an object of the gateway, or `None` while it does not exist.
    pub(crate) async fn shared_uid(&self, child: ManagedKind) -> Option<String> {
        let namespace = &self.subject.namespace;
        let written = self
            .locks
            .lock(namespace)
            .await
            .get(&(namespace.clone(), child))
            .map(|last| last.uid.clone());
        written.or_else(|| {
            self.views
                .known_object(child, &ObjectOwner::gateway(namespace), GATEWAY)
                .map(|known| known.uid)
        })
    }

    async fn write_object<K>(&self, write: &ObjectWrite<'_>) -> Result<ApplyOutcome, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        if write.shared {
            return self.apply_shared::<K>(write).await;
        }
        let answer = self.apply_or_create::<K>(write, write.desired.to_json()).await?;
        let expectation = self.expect_version(write, answer.version);
        let written = answer.has_content.then(|| self.owner(write));
        Ok(ApplyOutcome { expectation: Some(expectation), written, overridden: answer.overridden })
    }

    /// Applies an object that all ModelDeployments of a namespace own. One field manager applies
    /// its content for all of them, and each owner merges its owner reference by its UID. A
    /// separate field manager per owner does not scale: every manager adds its field list to the
    /// object, and the API server compares every write with all lists (with a hundred owners,
    /// writes took longer than ten seconds). Besides, the fields applied by the manager of a
    /// deleted owner could never be removed.
    async fn apply_shared<K>(&self, write: &ObjectWrite<'_>) -> Result<ApplyOutcome, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let name = write.desired.name();
        // Without the lock, concurrent writes of many owners would only conflict and retry.
        let mut turn = self.locks.lock(&self.subject.namespace).await;
        let key = (self.subject.namespace.clone(), write.child);
        let known = self.views.known_object(write.child, &self.owner(write), name);
        let has_owners = write.desired.metadata().owner_references.is_some();
        let is_owner = if has_owners {
            known.as_ref().is_some_and(|known| known.owners.contains(&self.subject.uid))
        } else {
            known.as_ref().is_none_or(|known| known.owners.is_empty())
        };
        // Another owner has just written this content, and nothing has changed it since.
        let is_current = |last: &&LastApply| {
            last.applied == write.desired.applied_hash()
                && known.as_ref().is_none_or(|known| known.version <= last.version)
        };
        let last = turn.get(&key).filter(is_current).cloned();
        let written = |uid: String, version| {
            let applied = write.desired.applied_hash().to_owned();
            LastApply { uid, applied, version, at: Instant::now(), disowned: false }
        };
        let (last, answer) = match (last, &known) {
            (Some(last), _) => (last, None),
            (None, Some(known))
                if (write.restoring || !is_owner) && is_up_to_date(write.desired, known) =>
            {
                (written(known.uid.clone(), known.version), None)
            }
            _ => {
                let mut content = write.desired.to_json();
                if let Some(metadata) = content["metadata"].as_object_mut() {
                    metadata.remove("ownerReferences");
                }
                let answer = self.apply_or_create::<K>(write, content).await?;
                let last = written(answer.uid.clone(), answer.version);
                turn.insert(key.clone(), last.clone());
                (last, Some(answer))
            }
        };
        let mut version = last.version;
        let another = has_owners && known.is_some_and(|known| known.uid != last.uid);
        if (!is_owner && (has_owners || !last.disowned)) || another {
            version = self.set_owners::<K>(write, &last.uid).await?;
            turn.insert(
                key,
                LastApply { version, at: Instant::now(), disowned: !has_owners, ..last },
            );
        }
        Ok(ApplyOutcome {
            expectation: Some(self.expect_version(write, version)),
            written: answer.as_ref().map(|_| self.owner(write)),
            overridden: answer.and_then(|answer| answer.overridden),
        })
    }

    /// Adds the reference to this owner to a shared object, or removes all references when there
    /// are too many.
    async fn set_owners<K>(&self, write: &ObjectWrite<'_>, uid: &str) -> Result<u64, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let (name, owners) = (write.desired.name(), &write.desired.metadata().owner_references);
        let owners =
            owners.as_ref().map_or_else(|| json!([{"$patch": "replace"}]), |owners| json!(owners));
        let reference = json!({"metadata": {"uid": uid, "ownerReferences": owners}});
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        let params =
            PatchParams { field_manager: Some(OWNERS_MANAGER.into()), ..PatchParams::default() };
        let merge = Patch::Strategic(&reference);
        let answer = with_timeout(
            "own",
            write.child.kind_name(),
            name,
            api.patch_metadata(name, &params, &merge),
        )
        .await?;
        Ok(version_of(&answer))
    }

    /// Applies an existing object of this owner, or creates a missing one.
    async fn apply_or_create<K>(
        &self,
        write: &ObjectWrite<'_>,
        mut body: Value,
    ) -> Result<ApplyAnswer, WriteError>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Serialize
            + DeserializeOwned
            + Clone
            + Debug,
    {
        let api = Api::<K>::namespaced(self.client.clone(), &self.subject.namespace);
        let name = write.desired.name();
        if let Some(known) = self.views.known_object(write.child, &self.owner(write), name) {
            if !write.shared && !self.may_control(known.controller.as_deref()) {
                return Err(write.error(foreign_fault(known.controller.as_deref())));
            }
            body["metadata"]["uid"] = known.uid.clone().into();
            if hand_over::needs_handover(write.desired, &known) {
                let client = self.client.clone();
                hand_over::claim_replicas(client, &self.subject.namespace, name, &known.uid)
                    .await?;
            }
            return patch_object(&api, write, &body).await;
        }
        let mut made = body.clone();
        made["metadata"]["resourceVersion"] = ABSENT_VERSION.into();
        match patch_object(&api, write, &made).await {
            // The object exists although the caches do not contain it: the caches are behind, its
            // labels were removed, or it belongs to another owner.
            Err(WriteError { fault: WriteFault::Conflict(_), .. }) => {
                let there =
                    with_timeout("get", write.child.kind_name(), name, api.get_metadata(name))
                        .await?
                        .metadata;
                self.check_ours(write, &there).map_err(|fault| write.error(fault))?;
                if write.child == ManagedKind::ReplicaSet {
                    // The planned size assumes that the ReplicaSet is missing. With its labels
                    // restored, the next plan sees its actual size.
                    return restore_labels(&api, write, &there).await;
                }
                body["metadata"]["uid"] = there.uid.into();
                patch_object(&api, write, &body).await
            }
            other => other,
        }
    }

    fn expect_version(&self, write: &ObjectWrite<'_>, version: u64) -> WriteExpectation {
        let awaited = AwaitedState::Version(version);
        WriteExpectation {
            child: write.child,
            owner: self.owner(write),
            name: write.desired.name().to_owned(),
            awaited,
        }
    }

    fn owner(&self, write: &ObjectWrite<'_>) -> ObjectOwner {
        if write.shared {
            ObjectOwner::gateway(&self.subject.namespace)
        } else {
            self.model_owner()
        }
    }

    /// An object without a controller that still has our labels was orphaned on purpose
    /// (`--cascade=orphan`): it is adopted again.
    fn may_control(&self, controller: Option<&str>) -> bool {
        controller.is_none_or(|uid| uid == self.subject.uid)
    }

    /// Any client can remove labels, but an owner reference to exactly this ModelDeployment cannot
    /// be an accident.
    fn check_ours(&self, write: &ObjectWrite<'_>, there: &ObjectMeta) -> Result<(), WriteFault> {
        let has = |key: &str, value: &str| {
            there.labels.as_ref().and_then(|l| l.get(key)).is_some_and(|v| v == value)
        };
        let labelled = has(labels::MANAGED_BY, labels::MANAGER)
            && if write.shared {
                has(labels::COMPONENT, labels::COMPONENT_GATEWAY)
            } else {
                has(labels::MODEL_DEPLOYMENT, &self.subject.name)
            };
        let owners = || there.owner_references.iter().flatten();
        let controller =
            owners().find(|owner| owner.controller == Some(true)).map(|owner| owner.uid.as_str());
        let is_owner = owners().any(|owner| owner.uid == self.subject.uid);
        if !labelled && !is_owner {
            return Err(WriteFault::Foreign("it lacks our labels".into()));
        }
        if write.shared || self.may_control(controller) {
            Ok(())
        } else {
            Err(foreign_fault(controller))
        }
    }
}

fn foreign_fault(controller: Option<&str>) -> WriteFault {
    WriteFault::Foreign(format!("its owner has UID {}", controller.unwrap_or_default()))
}

fn is_up_to_date(desired: &DesiredObject, known: &KnownObject) -> bool {
    known.applied == desired.applied_hash()
        && known.managed.lost_field(&fields::compared_fields(desired)).is_none()
}

async fn patch_object<K>(
    api: &Api<K>,
    write: &ObjectWrite<'_>,
    body: &Value,
) -> Result<ApplyAnswer, WriteError>
where
    K: Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
{
    let params = PatchParams::apply(labels::MANAGER).force();
    let name = write.desired.name();
    let answer = with_timeout(
        "apply",
        write.child.kind_name(),
        name,
        api.patch(name, &params, &Patch::Apply(body)),
    )
    .await?;
    let (uid, version) = (answer.uid().unwrap_or_default(), version_of(&answer));
    // Serialization cannot fail: the value was deserialized from JSON as this type.
    let taken = serde_json::to_value(answer).unwrap_or_default();
    Ok(ApplyAnswer {
        uid,
        version,
        overridden: find_overridden(&fields::compared_fields(write.desired), &taken),
        has_content: true,
    })
}

/// Restores the labels of an object of this operator.
async fn restore_labels<K>(
    api: &Api<K>,
    write: &ObjectWrite<'_>,
    there: &ObjectMeta,
) -> Result<ApplyAnswer, WriteError>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Clone + Debug,
{
    let uid = there.uid.clone().unwrap_or_default();
    let body = json!({"metadata": {"uid": uid, "labels": write.desired.metadata().labels}});
    let params =
        PatchParams { field_manager: Some(labels::MANAGER.to_owned()), ..PatchParams::default() };
    let name = write.desired.name();
    let merge = Patch::Strategic(&body);
    let answer = with_timeout(
        "label",
        write.child.kind_name(),
        name,
        api.patch_metadata(name, &params, &merge),
    )
    .await?;
    Ok(ApplyAnswer { uid, version: version_of(&answer), overridden: None, has_content: false })
}
