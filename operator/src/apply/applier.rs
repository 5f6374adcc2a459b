//! What a write needs, and what comes of it.

use kube::Client;
use slipway_cluster_views::{ClusterViews, ObjectOwner, OwnWrites, ReconcileTrigger};
use slipway_crds::v1alpha1::ModelDeployment;
use slipway_objects::GATEWAY;

use crate::apply::expectation::WriteExpectation;
use crate::apply::locks::NamespaceLocks;

/// The ModelDeployment on whose behalf is written.
#[derive(Clone, Debug)]
pub struct ModelIdentity {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
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

/// Carries actions out.
pub struct ActionApplier<'a> {
    /// Client.
    pub client: &'a Client,
    /// What is known of the objects.
    pub views: &'a ClusterViews,
    /// On whose behalf.
    pub subject: &'a ModelIdentity,
    /// Turns at shared objects.
    pub locks: &'a NamespaceLocks,
    /// The ModelDeployment that was planned on.
    pub object: &'a ModelDeployment,
    /// What was written of it since.
    pub own_writes: &'a OwnWrites,
}

/// What came of an action.
#[derive(Default)]
pub struct ApplyOutcome {
    /// What the watch of children shall bring back.
    pub expectation: Option<WriteExpectation>,
    /// Content was written, by us and not already by another ModelDeployment that shares the
    /// object: to whom that belongs.
    pub written: Option<ObjectOwner>,
    /// A field that the API server did not take as it was applied.
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
    /// The ModelDeployment as the owner of objects.
    pub(crate) fn model_owner(&self) -> ObjectOwner {
        self.subject.as_owner()
    }
}
