//! One map of in-memory state, by UID of the ModelDeployment, so that one lock suffices and an
//! entry is removed as a whole.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use parking_lot::{Mutex, MutexGuard};
use slipway_cluster_views::{ModelMemory, ObjectOwner};
use slipway_core::refusal::{RefusalReport, WriteTarget};

use crate::apply::expectation::WriteExpectation;

/// A rejected write.
#[derive(Clone)]
pub(crate) struct RefusedWrite {
    pub(crate) failures: u32,
    /// Time of the next attempt.
    pub(crate) due: Instant,
    /// What the status shows of it; nothing while it may pass.
    pub(crate) report: Option<RefusalReport>,
}

/// By what was written to.
pub(crate) type RefusalsByTarget = BTreeMap<WriteTarget, RefusedWrite>;

/// In-memory state of one ModelDeployment.
#[derive(Default)]
pub(crate) struct ObjectMemory {
    /// Consecutive failures.
    pub(crate) failures: u32,
    /// Rejected writes; `None` until this process has executed its first plan.
    pub(crate) refusals: Option<RefusalsByTarget>,
    /// Writes that the watch has not reported yet, with the time limit of each.
    pub(crate) expectations: Vec<(WriteExpectation, Instant)>,
    /// Since when a status write is delayed.
    pub(crate) status_waits_since: Option<Instant>,
    /// The namespace holder that was last reported.
    pub(crate) reported_holder: Option<String>,
}

/// In-memory state of all ModelDeployments, by UID.
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
