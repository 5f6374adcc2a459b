//! Caches of views: of every watched object they keep only the parts that a plan reads, indexed by
//! the owner. One watch serves both the reads (no GET or LIST per reconcile) and the triggers (a
//! reconcile only when a view changed).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kube::runtime::watcher::Event;
use kube::{Resource, ResourceExt};
use parking_lot::RwLock;
use slipway_crds::labels;
use tokio::sync::watch;

/// The owner of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectOwner {
    pub namespace: String,
    /// Name of the ModelDeployment; `None` for the gateway, which all ModelDeployments of the
    /// namespace share.
    pub model: Option<String>,
}

impl ObjectOwner {
    /// The owner according to the labels of an object, if they contain one.
    pub fn from_labels(object: &impl ResourceExt) -> Option<Self> {
        let namespace = object.namespace()?;
        let labels = object.labels();
        match labels.get(labels::MODEL_DEPLOYMENT) {
            Some(model) => Some(Self { namespace, model: Some(model.clone()) }),
            None if labels.get(labels::COMPONENT).map(String::as_str)
                == Some(labels::COMPONENT_GATEWAY) =>
            {
                Some(Self { namespace, model: None })
            }
            None => None,
        }
    }

    pub fn model(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), model: Some(name.to_owned()) }
    }

    pub fn gateway(namespace: &str) -> Self {
        Self { namespace: namespace.to_owned(), model: None }
    }
}

/// A cached object.
#[derive(Clone, Debug, PartialEq)]
pub struct CacheEntry<V> {
    /// Resource version: shows whether the watch has reported a write of the operator. It has
    /// always been numeric, and is defined to be since Kubernetes 1.35.
    pub version: u64,
    /// The part that a plan reads.
    pub view: V,
}

/// A changed view.
#[derive(Clone, Debug, PartialEq)]
pub struct ViewChange<V> {
    pub owner: ObjectOwner,
    /// Name of the object.
    pub name: String,
    /// The previous view; `None` if the object is new.
    pub before: Option<V>,
    /// The current view; `None` if the object is deleted or ignored.
    pub after: Option<V>,
}

type OwnedViews<V> = HashMap<ObjectOwner, BTreeMap<String, CacheEntry<V>>>;

struct CacheState<V> {
    views: OwnedViews<V>,
    /// Owner by (namespace, name): labels can change, so an event alone does not identify it.
    owners: HashMap<(String, String), ObjectOwner>,
    /// Entries of a running relist. They replace all others at its end, so that no reader sees an
    /// incomplete list.
    relist: Option<Vec<(ObjectOwner, String, CacheEntry<V>)>>,
}

/// The cache of one kind.
pub struct ViewCache<V> {
    inner: RwLock<CacheState<V>>,
    synced: watch::Sender<bool>,
}

impl<V> Default for ViewCache<V> {
    fn default() -> Self {
        let inner = CacheState { views: HashMap::new(), owners: HashMap::new(), relist: None };
        Self { inner: RwLock::new(inner), synced: watch::Sender::new(false) }
    }
}

/// The resource version of an object as a number; 0 when it has none.
pub fn version_of(object: &impl Resource) -> u64 {
    object.meta().resource_version.as_deref().and_then(|v| v.parse().ok()).unwrap_or(0)
}

impl<V: Clone + PartialEq> ViewCache<V> {
    /// Applies one event of the watch and returns the changed views. `view` returns `None` for
    /// objects to ignore.
    pub fn apply_event<K: ResourceExt>(
        &self,
        event: Event<K>,
        view: impl Fn(&K) -> Option<(ObjectOwner, V)>,
    ) -> Vec<ViewChange<V>> {
        self.apply_event_with(event, view, |_| {})
    }

    /// Like [`Self::apply_event`]; `seen` receives the changes before the cache counts as synced,
    /// so that data derived from them is as complete as the cache.
    pub fn apply_event_with<K: ResourceExt>(
        &self,
        event: Event<K>,
        view: impl Fn(&K) -> Option<(ObjectOwner, V)>,
        seen: impl FnOnce(&[ViewChange<V>]),
    ) -> Vec<ViewChange<V>> {
        let is_whole = matches!(event, Event::InitDone);
        let mut inner = self.inner.write();
        let read = |object: &K| {
            let (owner, view) = view(object)?;
            Some((owner, object.name_any(), CacheEntry { version: version_of(object), view }))
        };
        let changes = match event {
            Event::Init => {
                inner.relist = Some(Vec::new());
                Vec::new()
            }
            Event::InitApply(object) => {
                let found = read(&object);
                inner.relist.get_or_insert_default().extend(found);
                Vec::new()
            }
            Event::InitDone => inner.replace_all(),
            Event::Apply(object) => match read(&object) {
                Some((owner, name, entry)) => inner.put(owner, name, entry),
                None => inner.remove(&object.namespace().unwrap_or_default(), &object.name_any()),
            },
            Event::Delete(object) => {
                inner.remove(&object.namespace().unwrap_or_default(), &object.name_any())
            }
        };
        seen(&changes);
        drop(inner);
        if is_whole {
            self.synced.send_replace(true);
        }
        changes
    }

    /// All objects of one owner, by name.
    pub fn owned_by(&self, owner: &ObjectOwner) -> BTreeMap<String, CacheEntry<V>> {
        self.inner.read().views.get(owner).cloned().unwrap_or_default()
    }

    /// One object of an owner.
    pub fn get(&self, owner: &ObjectOwner, name: &str) -> Option<CacheEntry<V>> {
        self.inner.read().views.get(owner)?.get(name).cloned()
    }

    /// Names of the ModelDeployments in a namespace with a view for which `asked` holds.
    pub fn models_where(&self, namespace: &str, asked: impl Fn(&V) -> bool) -> Vec<String> {
        let inner = self.inner.read();
        let here = inner.views.iter().filter(|(owner, _)| owner.namespace == namespace);
        let asked = here.filter(|(_, entries)| entries.values().any(|entry| asked(&entry.view)));
        asked.filter_map(|(owner, _)| owner.model.clone()).collect()
    }

    /// Namespaces with at least one ModelDeployment.
    pub fn namespaces(&self) -> BTreeSet<String> {
        let inner = self.inner.read();
        inner
            .views
            .keys()
            .filter(|owner| owner.model.is_some())
            .map(|owner| owner.namespace.clone())
            .collect()
    }

    /// Whether a namespace has any ModelDeployment.
    pub fn has_models(&self, namespace: &str) -> bool {
        let inner = self.inner.read();
        inner.views.keys().any(|owner| owner.namespace == namespace && owner.model.is_some())
    }

    /// Number of ModelDeployments in a namespace.
    pub fn count_models(&self, namespace: &str) -> usize {
        let inner = self.inner.read();
        inner
            .views
            .keys()
            .filter(|owner| owner.namespace == namespace && owner.model.is_some())
            .count()
    }

    /// Objects of gateways that have the gateway's name, by namespace.
    pub fn gateways(&self) -> Vec<(String, V)> {
        let inner = self.inner.read();
        let gateways = inner.views.iter().filter(|(owner, _)| owner.model.is_none());
        let named = gateways
            .filter_map(|(owner, entries)| Some((owner, entries.get(slipway_objects::GATEWAY)?)));
        named.map(|(owner, entry)| (owner.namespace.clone(), entry.view.clone())).collect()
    }

    /// Whether the first list is complete.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until the first list is complete. Returns false when it never will be.
    pub async fn wait_until_synced(&self) -> bool {
        self.synced.subscribe().wait_for(|synced| *synced).await.is_ok()
    }
}

impl<V: Clone + PartialEq> CacheState<V> {
    fn put(
        &mut self,
        owner: ObjectOwner,
        name: String,
        entry: CacheEntry<V>,
    ) -> Vec<ViewChange<V>> {
        let mut changes = Vec::new();
        let key = (owner.namespace.clone(), name.clone());
        if self.owners.get(&key).is_some_and(|before| *before != owner) {
            changes = self.remove(&key.0, &key.1);
        }
        self.owners.insert(key, owner.clone());
        let after = entry.view.clone();
        let before = self
            .views
            .entry(owner.clone())
            .or_default()
            .insert(name.clone(), entry)
            .map(|e| e.view);
        if before.as_ref() != Some(&after) {
            changes.push(ViewChange { owner, name, before, after: Some(after) });
        }
        changes
    }

    fn remove(&mut self, namespace: &str, name: &str) -> Vec<ViewChange<V>> {
        let Some(owner) = self.owners.remove(&(namespace.to_owned(), name.to_owned())) else {
            return Vec::new();
        };
        let Some(objects) = self.views.get_mut(&owner) else {
            return Vec::new();
        };
        let before = objects.remove(name).map(|e| e.view);
        if objects.is_empty() {
            self.views.remove(&owner);
        }
        before
            .map(|view| ViewChange {
                owner,
                name: name.to_owned(),
                before: Some(view),
                after: None,
            })
            .into_iter()
            .collect()
    }

    fn replace_all(&mut self) -> Vec<ViewChange<V>> {
        let listed = self.relist.take().unwrap_or_default();
        let mut gone = std::mem::take(&mut self.owners);
        for (owner, name, _) in &listed {
            let key = (owner.namespace.clone(), name.clone());
            if let Some(before) = gone.remove(&key) {
                self.owners.insert(key, before);
            }
        }
        let mut changes = Vec::new();
        for (key, owner) in gone {
            self.owners.insert(key.clone(), owner);
            changes.extend(self.remove(&key.0, &key.1));
        }
        for (owner, name, entry) in listed {
            changes.extend(self.put(owner, name, entry));
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    use super::*;

    fn object(name: &str, model: &str, version: u64, value: &str) -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": {"name": name, "namespace": "ns", "resourceVersion": version.to_string(), "labels": {labels::MODEL_DEPLOYMENT: model}},
            "data": {"value": value}
        }))
        .unwrap()
    }

    fn view(object: &ConfigMap) -> Option<(ObjectOwner, String)> {
        Some((
            ObjectOwner::from_labels(object)?,
            object.data.as_ref().and_then(|d| d.get("value")).cloned().unwrap_or_default(),
        ))
    }

    fn take(cache: &ViewCache<String>, event: Event<ConfigMap>) -> Vec<(String, Option<String>)> {
        cache
            .apply_event(event, view)
            .into_iter()
            .map(|c| (format!("{:?}/{}", c.owner.model, c.name), c.after))
            .collect()
    }

    #[test]
    fn only_changes_of_views_are_reported_and_versions_follow() {
        let cache = ViewCache::default();
        assert_eq!(take(&cache, Event::Apply(object("a", "m", 1, "x"))).len(), 1);
        assert_eq!(take(&cache, Event::Apply(object("a", "m", 2, "x"))).len(), 0);
        assert_eq!(cache.get(&ObjectOwner::model("ns", "m"), "a").map(|e| e.version), Some(2));
        assert_eq!(take(&cache, Event::Apply(object("a", "m", 3, "y"))).len(), 1);
        assert_eq!(
            take(&cache, Event::Delete(object("a", "m", 4, "y"))),
            [("Some(\"m\")/a".to_owned(), None)]
        );
        assert!(cache.owned_by(&ObjectOwner::model("ns", "m")).is_empty());
    }

    #[test]
    fn a_relist_reports_what_went_missing_and_shows_no_half_list() {
        let cache = ViewCache::default();
        for name in ["a", "b"] {
            take(&cache, Event::Apply(object(name, "m", 1, "x")));
        }
        assert!(!cache.is_synced());
        take(&cache, Event::Init);
        assert!(take(&cache, Event::InitApply(object("b", "m", 5, "x"))).is_empty());
        assert!(take(&cache, Event::InitApply(object("c", "m", 6, "x"))).is_empty());
        assert_eq!(
            cache.owned_by(&ObjectOwner::model("ns", "m")).len(),
            2,
            "the old view stands until the list is whole"
        );
        let mut changes = take(&cache, Event::InitDone);
        changes.sort();
        assert_eq!(
            changes,
            [
                ("Some(\"m\")/a".to_owned(), None),
                ("Some(\"m\")/c".to_owned(), Some("x".to_owned()))
            ]
        );
        assert!(cache.is_synced());
        assert_eq!(cache.models_where("ns", |_| true), ["m"]);
        assert!(cache.models_where("ns", |view| view == "y").is_empty());
    }

    #[test]
    fn an_object_that_changes_hands_is_reported_to_both() {
        let cache = ViewCache::default();
        take(&cache, Event::Apply(object("a", "m", 1, "x")));
        let changes = take(&cache, Event::Apply(object("a", "n", 2, "x")));
        assert_eq!(
            changes,
            [
                ("Some(\"m\")/a".to_owned(), None),
                ("Some(\"n\")/a".to_owned(), Some("x".to_owned()))
            ]
        );
    }

    #[test]
    fn gateway_objects_belong_to_the_namespace() {
        let mut shared = object("g", "m", 1, "x");
        shared.metadata.labels =
            Some([(labels::COMPONENT.to_owned(), labels::COMPONENT_GATEWAY.to_owned())].into());
        assert_eq!(ObjectOwner::from_labels(&shared), Some(ObjectOwner::gateway("ns")));
        shared.metadata.labels = None;
        assert_eq!(ObjectOwner::from_labels(&shared), None);
    }
}
