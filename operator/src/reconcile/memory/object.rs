//! One map of what is remembered, by UID of the ModelDeployment: one lock, and forgotten as a
//! whole.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use slipway_cluster_views::{ModelMemory, ObjectOwner};
use slipway_core::refusal::{RefusalReport, WriteTarget};

use crate::apply::expectation::WriteExpectation;

/// A write that is refused.
#[derive(Clone)]
pub(crate) struct RefusedWrite {
    pub(crate) failures: u32,
    /// When to try again.
    pub(crate) due: Instant,
    /// What the status shows of it; nothing while it may pass.
    pub(crate) report: Option<RefusalReport>,
}

/// By what was written to.
pub(crate) type RefusalsByTarget = BTreeMap<WriteTarget, RefusedWrite>;

/// What is remembered of one ModelDeployment.
#[derive(Default)]
pub(crate) struct ObjectMemory {
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Writes that are refused; nothing before the first plan of this process was carried out.
    pub(crate) refusals: Option<RefusalsByTarget>,
    /// Writes that have not come back yet, and until when they are waited for.
    pub(crate) expectations: Vec<(WriteExpectation, Instant)>,
    /// Since when a status waits.
    pub(crate) status_waits_since: Option<Instant>,
    /// Which holder of its namespace it was told.
    pub(crate) told_holder: Option<String>,
}

/// What is remembered of all ModelDeployments, by UID.
#[derive(Default)]
pub struct ObjectMemories {
    by_uid: Mutex<HashMap<String, ObjectMemory>>,
}

impl ModelMemory for ObjectMemories {
    fn forget(&self, uid: &str, _: &ObjectOwner) {
        self.lock().remove(uid);
    }

    fn remembers(&self, uid: &str, _: &ObjectOwner) -> bool {
        self.lock().contains_key(uid)
    }
}

impl ObjectMemories {
    pub(crate) fn lock(&self) -> MutexGuard<'_, HashMap<String, ObjectMemory>> {
        self.by_uid.lock()
    }
}
