//! Records which other operator was reported as the holder of a ModelDeployment's namespace.

use crate::reconcile::memory::object::ObjectMemories;

impl ObjectMemories {
    /// Records `holder`; returns whether it has not been reported for this ModelDeployment before.
    pub fn is_new_holder(&self, uid: &str, holder: &str) -> bool {
        let mut all = self.lock();
        let reported = &mut all.entry(uid.to_owned()).or_default().reported_holder;
        reported.replace(holder.to_owned()).as_deref() != Some(holder)
    }
}

#[cfg(test)]
mod tests {
    use slipway_cluster_views::{ModelMemory, ObjectOwner};

    use super::*;

    #[test]
    fn a_holder_is_told_once() {
        let memories = ObjectMemories::default();
        assert!(
            memories.is_new_holder("u", "b")
                && !memories.is_new_holder("u", "b")
                && memories.is_new_holder("u", "c")
        );
        memories.forget("u", &ObjectOwner::model("ns", "m"));
        assert!(memories.is_new_holder("u", "c"));
    }
}
