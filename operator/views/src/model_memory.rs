//! What the parts of the operator keep of ModelDeployments beside these caches.

use crate::cache::ObjectOwner;

/// Something that keeps state of ModelDeployments. Where it lies depends on who uses it; all of it
/// is dropped together.
pub trait ModelMemory {
    /// Drops what is kept of a ModelDeployment, by its UID or by its name.
    fn forget(&self, uid: &str, owner: &ObjectOwner);

    /// Whether anything is kept of it.
    fn remembers(&self, uid: &str, owner: &ObjectOwner) -> bool;
}
