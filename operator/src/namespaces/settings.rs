//! Gateway settings that administrators set in the annotation [`GATEWAY_SETTINGS`] of a namespace.
//! They take precedence over those of the chart.

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event};
use kube::{Api, ResourceExt};
use parking_lot::RwLock;
use slipway_crds::labels::GATEWAY_SETTINGS;
use slipway_objects::gateway_settings::GatewaySettings;
use slipway_objects::settings::PlanSettings;
use tokio::sync::watch;

use crate::watch::context::{WatchContext, ok_or_log};

/// Parses gateway settings.
///
/// # Errors
/// For values that cannot be parsed, and for unknown fields, which would otherwise be ignored
/// silently.
pub fn parse_settings(text: &str) -> Result<GatewaySettings, String> {
    // The text contains only blanks and comments.
    if serde_yaml::from_str::<serde_yaml::Value>(text).is_ok_and(|value| value.is_null()) {
        return Ok(GatewaySettings::default());
    }
    let mut unknown = Vec::new();
    let text = serde_yaml::Deserializer::from_str(text);
    let read: GatewaySettings =
        serde_ignored::deserialize(text, |path| unknown.push(path.to_string()))
            .map_err(|e| e.to_string())?;
    match unknown.first() {
        Some(path) => {
            Err(format!("there is no field {}", path.replace('?', "").replace("..", ".")))
        }
        None => Ok(read),
    }
}

/// The settings of a namespace that has the annotation.
struct NamespaceOverride {
    text: String,
    settings: Arc<PlanSettings>,
}

/// The settings of all namespaces.
pub struct NamespaceSettings {
    /// Settings of namespaces without the annotation.
    common: Arc<PlanSettings>,
    /// Gateway settings of the chart.
    gateways: GatewaySettings,
    overrides: RwLock<HashMap<String, NamespaceOverride>>,
    synced: watch::Sender<bool>,
}

impl NamespaceSettings {
    /// Creates settings that are the same for all namespaces; `gateways` are the gateway settings
    /// contained in `common`.
    pub fn new(common: PlanSettings, gateways: GatewaySettings) -> Self {
        Self {
            common: Arc::new(common),
            gateways,
            overrides: RwLock::default(),
            synced: watch::Sender::new(false),
        }
    }

    /// The settings of a namespace. Returns the same pointer as long as they do not change.
    pub fn for_namespace(&self, namespace: &str) -> Arc<PlanSettings> {
        let own = self.overrides.read();
        own.get(namespace).map_or_else(|| Arc::clone(&self.common), |own| Arc::clone(&own.settings))
    }

    /// Waits until the annotations that existed at the start are known. Returns false when they
    /// never will be.
    pub async fn wait_until_synced(&self) -> bool {
        self.synced.subscribe().wait_for(|synced| *synced).await.is_ok()
    }

    /// Stores the annotation of a namespace. Returns whether it changed.
    fn update_namespace(&self, namespace: &str, text: Option<&str>) -> bool {
        let mut own = self.overrides.write();
        if own.get(namespace).map(|own| own.text.as_str()) == text {
            return false;
        }
        match text {
            Some(text) => {
                let settings = Arc::new(self.merge_settings(namespace, text));
                own.insert(
                    namespace.to_owned(),
                    NamespaceOverride { text: text.to_owned(), settings },
                );
            }
            None => drop(own.remove(namespace)),
        }
        true
    }

    fn merge_settings(&self, namespace: &str, text: &str) -> PlanSettings {
        let mut settings = PlanSettings::clone(&self.common);
        let problem = parse_settings(text)
            .and_then(|read| read.or(&self.gateways).apply_to(&mut settings))
            .err();
        settings.gateway_problem = problem.map(|why| {
            tracing::warn!(namespace, why, "the settings that a namespace has for its gateway cannot be followed");
            format!(
                "annotation {GATEWAY_SETTINGS} of namespace {namespace}: {why}; its gateway stays as it is until that is mended"
            )
        });
        settings
    }

    /// Applies an event of the watch. Returns the namespaces whose settings changed.
    fn apply_event(
        &self,
        event: Event<PartialObjectMeta<Namespace>>,
        listed: &mut BTreeSet<String>,
    ) -> Vec<String> {
        let settings_of = |object: &PartialObjectMeta<Namespace>| {
            let (name, text) =
                (object.name_any(), object.annotations().get(GATEWAY_SETTINGS).map(String::as_str));
            self.update_namespace(&name, text).then_some(name)
        };
        match event {
            Event::Init => {
                listed.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                listed.insert(object.name_any());
                settings_of(&object).into_iter().collect()
            }
            Event::InitDone => {
                let known = self.overrides.read();
                let gone: Vec<String> =
                    known.keys().filter(|name| !listed.contains(*name)).cloned().collect();
                drop(known);
                for name in &gone {
                    self.update_namespace(name, None);
                }
                self.synced.send_replace(true);
                gone
            }
            Event::Apply(object) => settings_of(&object).into_iter().collect(),
            Event::Delete(object) => {
                self.update_namespace(&object.name_any(), None);
                Vec::new()
            }
        }
    }
}

/// Watches the namespaces, or the one configured namespace, until the operator stops, and triggers
/// the ModelDeployments whose settings change.
pub async fn watch_settings(ctx: WatchContext, settings: Arc<NamespaceSettings>) {
    let config = ctx.namespace.as_ref().map_or_else(watcher::Config::default, |namespace| {
        watcher::Config::default().fields(&format!("metadata.name={namespace}"))
    });
    let events =
        watcher::watcher(Api::<PartialObjectMeta<Namespace>>::all(ctx.client.clone()), config)
            .default_backoff();
    let follow = async {
        let (mut events, mut listed) = (pin!(events), BTreeSet::new());
        while let Some(event) = events.next().await {
            let Some(event) = ok_or_log(event, &ctx.metrics) else { continue };
            for namespace in settings.apply_event(event, &mut listed) {
                ctx.trigger_namespace(&namespace);
            }
        }
    };
    ctx.stop.run_until_cancelled(follow).await;
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use slipway_objects::settings::GatewayAutoscaler;

    use super::*;

    fn namespace(name: &str, text: Option<&str>) -> PartialObjectMeta<Namespace> {
        let annotations = text.map(|text| json!({GATEWAY_SETTINGS: text}));
        serde_json::from_value(json!({"metadata": {"name": name, "annotations": annotations}}))
            .unwrap()
    }

    fn settings(gateways: &str) -> NamespaceSettings {
        let mut common = crate::watch::observe::tests::settings();
        let gateways = parse_settings(gateways).unwrap();
        gateways.clone().apply_to(&mut common).unwrap();
        NamespaceSettings::new(common, gateways)
    }

    #[test]
    fn a_namespace_speaks_of_its_own_gateway_alone() {
        let (settings, mut listed) =
            (settings("replicas: 3\nautoscaling: { maxReplicas: 20 }"), BTreeSet::new());
        let mut note = |event| settings.apply_event(event, &mut listed);
        assert!(note(Event::Init).is_empty());
        assert_eq!(
            note(Event::InitApply(namespace("a", Some("autoscaling: { mode: Enabled }")))),
            ["a"]
        );
        assert!(note(Event::InitApply(namespace("b", None))).is_empty(), "it says nothing");
        assert!(note(Event::InitDone).is_empty());
        let scaled = settings.for_namespace("a");
        let GatewayAutoscaler::Ours { min_replicas, max_replicas, .. } = &scaled.gateway_autoscaler
        else {
            panic!("{scaled:?}")
        };
        assert_eq!((scaled.gateway_replicas, *min_replicas, *max_replicas), (3, 2, 20));
        assert_eq!(settings.for_namespace("b").gateway_autoscaler, GatewayAutoscaler::None);
        assert!(
            note(Event::Apply(namespace("a", Some("autoscaling: { mode: Enabled }")))).is_empty(),
            "no news"
        );
        assert!(Arc::ptr_eq(&scaled, &settings.for_namespace("a")));
        assert_eq!(note(Event::Apply(namespace("a", None))), ["a"]);
        assert_eq!(settings.for_namespace("a").gateway_autoscaler, GatewayAutoscaler::None);
    }

    #[test]
    fn what_a_namespace_said_while_the_watch_was_away_is_news() {
        let (settings, mut listed) = (settings(""), BTreeSet::new());
        let mut note = |event| settings.apply_event(event, &mut listed);
        note(Event::Apply(namespace("a", Some("replicas: 5"))));
        note(Event::Init);
        assert_eq!(note(Event::InitApply(namespace("b", Some("replicas: 4")))), ["b"]);
        assert_eq!(note(Event::InitDone), ["a"], "it is gone");
        assert_eq!(
            (
                settings.for_namespace("a").gateway_replicas,
                settings.for_namespace("b").gateway_replicas
            ),
            (2, 4)
        );
    }

    #[test]
    fn what_cannot_be_followed_is_told_and_names_the_place() {
        let settings = settings("");
        for (text, word) in [
            ("replicas: many", "replicas: invalid type: string \"many\""),
            ("replicas: 2000", "replicas: 2000 is not within 1 and 1000"),
            (
                "autoscaling: { mode: Sometimes }",
                "unknown variant `Sometimes`, expected one of `Disabled`, `Enabled`",
            ),
            (
                "autoscaling: { minReplicas: 5, maxReplicas: 4 }",
                "autoscaling.minReplicas (5) is above",
            ),
            (
                "autoscaling: { targetAverageCpu: fast }",
                "autoscaling.targetAverageCpu: fast is no amount of CPU",
            ),
            (
                "update: Paused",
                "unknown field `update`, expected one of `replicas`, `autoscaling`, `template`",
            ),
            (
                "template: { spec: { nodeSelectors: {} } }",
                "there is no field template.spec.nodeSelectors",
            ),
            (
                "template: { spec: { containers: [{ name: gateway, arg: [] }] } }",
                "spec.containers.0.arg",
            ),
            ("{", "did not find"),
        ] {
            settings.update_namespace("lab", Some(text));
            let problem = settings.for_namespace("lab").gateway_problem.clone().unwrap();
            assert!(
                problem.starts_with("annotation ml.slipway.dev/gateway of namespace lab: "),
                "{problem}"
            );
            assert!(problem.contains(word), "{text}: {problem}");
        }
        settings.update_namespace("lab", Some("# nothing yet"));
        assert_eq!(settings.for_namespace("lab").gateway_problem, None);
    }
}
