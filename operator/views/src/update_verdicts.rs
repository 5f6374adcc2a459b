//! The latest decisions on which gateways may be updated.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::RwLock;
use slipway_core::observed::UpdatePermission;

/// The latest update decision for the gateway of each namespace.
#[derive(Default)]
pub struct UpdateVerdicts(RwLock<BTreeMap<String, UpdatePermission>>);

impl UpdateVerdicts {
    /// The decision for a namespace; [`UpdatePermission::Waiting`] before the first one.
    pub fn for_namespace(&self, namespace: &str) -> UpdatePermission {
        let all = self.0.read();
        all.get(namespace).cloned().unwrap_or(UpdatePermission::Waiting)
    }

    /// Stores new decisions. Returns the namespaces that need a reconcile: those whose gateway must
    /// be updated now, or whose reported reason changed. After a start with all gateways up to date
    /// there is none, however many gateways exist.
    pub fn replace(
        &self,
        new: BTreeMap<String, UpdatePermission>,
        current: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut all = self.0.write();
        let said = |update: Option<&UpdatePermission>| {
            matches!(update, Some(UpdatePermission::Stopped(_)))
        };
        let news = new.iter().filter(|(namespace, update)| {
            let before = all.get(*namespace);
            before != Some(update) && (!current.contains(*namespace) || said(before))
        });
        let news = news.map(|(namespace, _)| namespace.clone()).collect();
        *all = new;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_anything_was_decided_gateways_stay_as_they_are() {
        let verdicts = UpdateVerdicts::default();
        assert_eq!(verdicts.for_namespace("a"), UpdatePermission::Waiting);
        let (none, a) = (BTreeSet::new(), BTreeSet::from(["a".to_owned()]));
        let all = |update: UpdatePermission| BTreeMap::from([("a".to_owned(), update)]);
        assert_eq!(verdicts.replace(all(UpdatePermission::Allowed), &none), ["a"]);
        assert!(verdicts.replace(all(UpdatePermission::Allowed), &none).is_empty());
        assert_eq!(verdicts.for_namespace("a"), UpdatePermission::Allowed);
        // An up-to-date gateway needs no reconcile, unless its status reports a stopped update.
        assert!(UpdateVerdicts::default().replace(all(UpdatePermission::Allowed), &a).is_empty());
        verdicts.replace(all(UpdatePermission::Stopped("x".into())), &none);
        assert_eq!(verdicts.replace(all(UpdatePermission::Allowed), &a), ["a"]);
    }
}
