//! The gateway's own view of the cluster. No operator stands between a change and the traffic.

use std::{collections::HashMap, convert::Infallible, fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use slipway_crds::labels::{MANAGED_BY, MANAGER, REVISION};

use crate::{
    convert::{Concerned, Converter},
    error::Error,
    feedback::peers_of,
    gateway::Gateway,
    resource::RoutedModelDeployment,
};

/// Shortest and longest pause between two tries to reach the API server. Shorter than kube's default of 30 s: a gateway that comes
/// back late holds up an abort, and a namespace has only a few gateway pods.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The Service of the gateways of a namespace.
const GATEWAY: &str = "slipway-gateway";

/// What the watches said.
enum Heard {
    /// About ModelDeployments.
    Models(Said<DeserializeGuard<RoutedModelDeployment>>),
    /// About EndpointSlices.
    Slices(Said<EndpointSlice>),
    /// About those of the gateways themselves.
    Peers(Said<EndpointSlice>),
}

/// What a watch said.
enum Said<K> {
    /// Something was applied.
    Applied(Box<K>),
    /// The object of this name was deleted.
    Deleted(String),
    /// These are all there are.
    All(Vec<K>),
    /// A list is under way.
    Nothing,
    /// The API server did not answer, or refused.
    Trouble(watcher::Error),
}

/// Watches the namespace and applies every change, for ever.
///
/// What is known stays known while the API server is away: a list takes effect only when it is complete.
///
/// # Errors
/// When a watch ends by itself, which it never should.
pub async fn run(gateway: Arc<Gateway>, client: Client) -> Result<Infallible, Error> {
    let namespace = gateway.settings.namespace.clone();
    let models = Api::<DeserializeGuard<RoutedModelDeployment>>::namespaced(client.clone(), &namespace);
    let slices = Api::<EndpointSlice>::namespaced(client, &namespace);
    let selector = format!("{MANAGED_BY}={MANAGER},{REVISION}");
    let trim = |object: &mut DeserializeGuard<RoutedModelDeployment>| {
        if let Ok(object) = &mut object.0 {
            object.trim();
        }
    };
    // An object may have 1.5 MB before it is trimmed.
    let models = watched(models, watcher::Config::default().page_size(50), trim).map(Heard::Models);
    let peers = watcher::Config::default().labels(&format!("kubernetes.io/service-name={GATEWAY}"));
    let peers = watched(slices.clone(), peers, |_| {}).map(Heard::Peers);
    let slices = watched(slices, watcher::Config::default().labels(&selector), |_| {}).map(Heard::Slices);

    let mut events = stream::select(stream::select(models, slices), peers);
    let mut of_gateways = HashMap::new();
    let (mut synced, mut converter, mut concerned) = ((false, false), Converter::default(), Concerned::new());
    loop {
        let mut news = match events.next().await.ok_or(Error::Task("watch"))? {
            Heard::Models(said) => {
                synced.0 |= matches!(said, Said::All(_));
                let (model, gone, all) = (Converter::model, Converter::model_gone, Converter::all_models);
                taken("modeldeployments", said, &mut converter, model, gone, all)
            }
            Heard::Slices(said) => {
                synced.1 |= matches!(said, Said::All(_));
                let (slice, gone, all) = (Converter::slice, Converter::slice_gone, Converter::all_slices);
                taken("endpointslices", said, &mut converter, slice, gone, all)
            }
            Heard::Peers(said) => {
                // Nobody's traffic depends on these.
                if note(&mut of_gateways, said) {
                    gateway.feedback.peers.set(peers_of(of_gateways.values()));
                }
                continue;
            }
        };
        concerned.append(&mut news);
        if synced == (true, true) {
            for name in std::mem::take(&mut concerned) {
                gateway.router.update(&name, converter.current(&name));
            }
            if gateway.set_synced() {
                tracing::info!(modeldeployments = converter.len(), "both watches are synced");
            }
        }
    }
}

/// Takes in what a watch said. Gives the ModelDeployments that it concerns.
fn taken<K>(
    kind: &str,
    said: Said<K>,
    converter: &mut Converter,
    applied: fn(&mut Converter, &K) -> Concerned,
    deleted: fn(&mut Converter, &str) -> Concerned,
    all: fn(&mut Converter, &[K]) -> Concerned,
) -> Concerned {
    match said {
        Said::Applied(object) => applied(converter, &object),
        Said::Deleted(name) => deleted(converter, &name),
        Said::All(objects) => all(converter, &objects),
        Said::Nothing => Concerned::new(),
        Said::Trouble(error) => {
            tracing::warn!(kind, %error, "watch failed: what is known stays in force");
            Concerned::new()
        }
    }
}

/// Takes in what is said of the slices of gateways. Returns whether it is news.
fn note(slices: &mut HashMap<String, EndpointSlice>, said: Said<EndpointSlice>) -> bool {
    match said {
        Said::Applied(slice) => _ = slices.insert(slice.name_any(), *slice),
        Said::Deleted(name) => _ = slices.remove(&name),
        Said::All(all) => *slices = all.into_iter().map(|slice| (slice.name_any(), slice)).collect(),
        Said::Nothing => return false,
        Said::Trouble(error) => {
            tracing::warn!(kind = "endpointslices of gateways", %error, "watch failed: what is known stays in force");
            return false;
        }
    }
    true
}

fn watched<K>(api: Api<K>, config: watcher::Config, trim: fn(&mut K)) -> impl Stream<Item = Said<K>> + Send + Unpin
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let mut list = Vec::new();
    let events = watcher(api, config)
        .backoff(Pauses::default())
        // Nothing here reads them, and they are most of an object.
        .modify(move |object| {
            object.managed_fields_mut().clear();
            trim(object);
        })
        .map(move |event| match event {
            Ok(Event::Init) => {
                list.clear();
                Said::Nothing
            }
            Ok(Event::InitApply(object)) => {
                list.push(object);
                Said::Nothing
            }
            Ok(Event::InitDone) => Said::All(std::mem::take(&mut list)),
            Ok(Event::Apply(object)) => Said::Applied(Box::new(object)),
            Ok(Event::Delete(object)) => Said::Deleted(object.name_any()),
            Err(error) => Said::Trouble(error),
        });
    events.boxed()
}

/// Pauses that double up to the longest one, until something succeeds.
#[derive(Debug)]
struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSES.0)
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = self.0;
        self.0 = (pause * 2).min(PAUSES.1);
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_bounded_and_start_again() {
        let mut pauses = Pauses::default();
        let millis: Vec<_> = pauses.by_ref().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [200, 400, 800, 1600, 3200, 5000, 5000]);
        pauses.reset();
        assert_eq!(pauses.next(), Some(PAUSES.0));
    }
}
