//! The context of a write to the API server, and its outcome.

use kube::Client;
use slipway_cluster_views::{ClusterViews, ObjectOwner, OwnWrites, ReconcileTrigger};
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_objects::GATEWAY;

use crate::apply::expectation::WriteExpectation;
use crate::apply::locks::NamespaceLocks;

/// The ModelDeployment for which objects are written.
#[derive(Clone, Debug)]
pub struct ModelIdentity {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl ModelIdentity {
    /// As the owner of objects.
    pub fn as_owner(&self) -> ObjectOwner {
        ObjectOwner::model(&self.namespace, &self.name)
    }

    /// To whom an object of its namespace belongs that it deletes: one of the gateway's name, which
    /// no ModelDeployment may have, to the gateway.
    pub fn owner_of(&self, name: &str) -> ObjectOwner {
        if name == GATEWAY { ObjectOwner::gateway(&self.namespace) } else { self.as_owner() }
    }
}

/// Executes the actions of a plan.
pub struct ActionApplier<'a> {
    pub client: &'a Client,
    /// Caches of the watched objects.
    pub views: &'a ClusterViews,
    /// The ModelDeployment for which objects are written.
    pub subject: &'a ModelIdentity,
    /// Locks for the objects that the ModelDeployments of a namespace share.
    pub locks: &'a NamespaceLocks,
    /// The ModelDeployment from which the plan was made.
    pub object: &'a ModelDeployment,
    /// Newer versions of it that this process has written since.
    pub own_writes: &'a OwnWrites,
}

/// The outcome of an action.
#[derive(Default)]
pub struct ApplyOutcome {
    /// The change that the watch of children is expected to report.
    pub expectation: Option<WriteExpectation>,
    /// Owner of an object whose content this action wrote; `None` when another ModelDeployment
    /// that shares the object had already written it.
    pub written: Option<ObjectOwner>,
    /// Path of a field whose applied value the API server changed.
    pub overridden: Option<String>,
}

impl From<WriteExpectation> for ApplyOutcome {
    fn from(expectation: WriteExpectation) -> Self {
        Self { expectation: Some(expectation), ..Self::default() }
    }
}

impl From<&ModelIdentity> for ReconcileTrigger {
    fn from(subject: &ModelIdentity) -> Self {
        Self::new(&subject.name).within(&subject.namespace)
    }
}

impl ActionApplier<'_> {
    /// This ModelDeployment as the owner of objects.
    pub(crate) fn model_owner(&self) -> ObjectOwner {
        self.subject.as_owner()
    }
}
