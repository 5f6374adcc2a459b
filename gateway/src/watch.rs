//! The gateway's own view of the cluster. No operator stands between a change and the traffic.

use std::{convert::Infallible, fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        utils::Backoff,
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use slipway_crds::{
    labels::{MANAGED_BY, MANAGER, REVISION},
    v1alpha1::ModelDeployment,
};

use crate::{convert::Converter, error::Error, gateway::Gateway};

/// Shortest and longest pause between two tries to reach the API server. Shorter than kube's default of 30 s: a gateway that comes
/// back late holds up an abort, and a namespace has only a few gateway pods.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// What a watch said, without the object.
enum Heard {
    /// Something was applied or deleted, or a list is complete: the store is whole and may differ from before.
    Change(Source),
    /// A list is under way, the store still holds what was there before.
    Nothing,
    /// The API server did not answer, or refused.
    Trouble(Source, watcher::Error),
}

#[derive(Clone, Copy, Debug)]
enum Source {
    Models,
    Slices,
}

/// Watches the namespace and applies every change, for ever.
///
/// What is known stays known while the API server is away: a reflector swaps its content only when a new list is complete.
///
/// # Errors
/// When a watch ends by itself, which it never should.
pub async fn run(gateway: Arc<Gateway>, client: Client) -> Result<Infallible, Error> {
    let namespace = gateway.settings.namespace.clone();
    let models = Api::<DeserializeGuard<ModelDeployment>>::namespaced(client.clone(), &namespace);
    let slices = Api::<EndpointSlice>::namespaced(client, &namespace);
    let selector = format!("{MANAGED_BY}={MANAGER},{REVISION}");
    let (models, model_events) = reflect(models, watcher::Config::default(), Source::Models);
    let (slices, slice_events) = reflect(slices, watcher::Config::default().labels(&selector), Source::Slices);

    let mut events = stream::select(model_events, slice_events);
    let (mut synced, mut converter) = ((false, false), Converter::default());
    loop {
        match events.next().await.ok_or(Error::Task("watch"))? {
            Heard::Nothing => continue,
            Heard::Trouble(source, error) => {
                tracing::warn!(?source, %error, "watch failed: what is known stays in force");
                continue;
            }
            Heard::Change(Source::Models) => synced.0 = true,
            Heard::Change(Source::Slices) => synced.1 = true,
        }
        if synced == (true, true) {
            let (models, slices) = (models.state(), slices.state());
            let snapshot = converter.snapshot(models.iter().map(AsRef::as_ref), slices.iter().map(AsRef::as_ref));
            gateway.router.apply(&snapshot);
            if gateway.set_synced() {
                tracing::info!(modeldeployments = snapshot.models.len(), "both watches are synced");
            }
        }
    }
}

fn reflect<K>(
    api: Api<K>,
    config: watcher::Config,
    source: Source,
) -> (Store<K>, impl Stream<Item = Heard> + Send + Unpin)
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let events = watcher(api, config)
        .backoff(Pauses::default())
        // Nothing here reads them, and they are most of an object.
        .modify(|object| object.managed_fields_mut().clear())
        .reflect(writer)
        .map(move |event| match event {
            Ok(Event::Init | Event::InitApply(_)) => Heard::Nothing,
            Ok(Event::InitDone | Event::Apply(_) | Event::Delete(_)) => Heard::Change(source),
            Err(error) => Heard::Trouble(source, error),
        });
    (store, events.boxed())
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
