//! Which gateways may be updated now, as was decided last.

use std::collections::{BTreeMap, BTreeSet};

use parking_lot::RwLock;
use slipway_core::observed::UpdatePermission;

/// Which gateways may be updated now, by namespace.
#[derive(Default)]
pub struct UpdateVerdicts(RwLock<BTreeMap<String, UpdatePermission>>);

impl UpdateVerdicts {
    /// What was decided for a namespace. Before anything was, it waits.
    pub fn for_namespace(&self, namespace: &str) -> UpdatePermission {
        let all = self.0.read();
        all.get(namespace).cloned().unwrap_or(UpdatePermission::Waiting)
    }

    /// Takes in what was decided. Gives the namespaces for which that is news: those whose gateway
    /// is to be updated now, or that have something else to say than before. At a start that is
    /// none, however many gateways there are, when all of them are up to date.
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
        // What is up to date need not be looked at, unless it has said that it is not.
        assert!(UpdateVerdicts::default().replace(all(UpdatePermission::Allowed), &a).is_empty());
        verdicts.replace(all(UpdatePermission::Stopped("x".into())), &none);
        assert_eq!(verdicts.replace(all(UpdatePermission::Allowed), &a), ["a"]);
    }
}
