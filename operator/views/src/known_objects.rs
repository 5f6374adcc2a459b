//! The cached state of one object of a kind that the operator writes.

use slipway_core::fields::ManagedFields;
use slipway_objects::ManagedKind;

use crate::cache::ObjectOwner;
use crate::views::ClusterViews;

/// The cached state of an object.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownObject {
    pub uid: String,
    pub version: u64,
    /// UIDs of its owners; for a ReplicaSet only its controller.
    pub owners: Vec<String>,
    /// UID of its controller.
    pub controller: Option<String>,
    /// Hash of the content that was applied last.
    pub applied: String,
    /// The fields that the operator manages.
    pub managed: ManagedFields,
}

impl ClusterViews {
    /// The cached state of an object with our labels.
    pub fn known_object(
        &self,
        child: ManagedKind,
        owner: &ObjectOwner,
        name: &str,
    ) -> Option<KnownObject> {
        match child {
            ManagedKind::ReplicaSet => self.replica_sets.get(owner, name).map(|e| KnownObject {
                uid: e.view.view.uid,
                version: e.version,
                owners: e.view.controller.iter().cloned().collect(),
                controller: e.view.controller,
                applied: e.view.view.applied_hash,
                managed: e.view.view.managed_fields,
            }),
            // Pods are evicted and never applied.
            ManagedKind::Pod => self.pods.get(owner, name).map(|e| KnownObject {
                uid: e.view.uid,
                version: e.version,
                owners: Vec::new(),
                controller: e.view.controller.map(|(_, uid)| uid),
                applied: String::new(),
                managed: ManagedFields::default(),
            }),
            other => self.object_views(other)?.get(owner, name).map(|e| KnownObject {
                uid: e.view.uid,
                version: e.version,
                owners: e.view.owners,
                controller: e.view.controller,
                applied: e.view.applied_hash,
                managed: e.view.managed_fields,
            }),
        }
    }
}
