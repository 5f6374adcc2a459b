//! The gateway's own watches of the cluster, so that changes take effect without the operator.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event, watcher};
use kube::runtime::{WatchStreamExt, utils};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use slipway_chassis::backoff::{Backoff, Jitter};
use slipway_crds::labels::{MANAGED_BY, MANAGER, REVISION};
use slipway_gateway_feedback::peers::peers_from_slices;
use slipway_gateway_routing::context::GatewayContext;
use thiserror::Error;

use crate::convert::{AffectedModels, ResourceConverter};
use crate::resource::RoutedModelDeployment;

/// Waits between two attempts to reach the API server. Shorter than kube's default of 30 s: a
/// gateway that comes back late holds up an abort. Without jitter: a namespace has only a few
/// gateway pods.
const RETRY_BACKOFF: Backoff = Backoff {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(5),
    jitter: Jitter::None,
};

/// The Service of the gateways of a namespace.
const GATEWAY: &str = "slipway-gateway";

/// A change reported by one of the watches.
enum WatchUpdate {
    /// A change of ModelDeployments.
    Models(WatchChange<DeserializeGuard<RoutedModelDeployment>>),
    /// A change of EndpointSlices of revisions.
    Slices(WatchChange<EndpointSlice>),
    /// A change of EndpointSlices of gateways.
    Peers(WatchChange<EndpointSlice>),
}

/// A change that a watch reports.
enum WatchChange<K> {
    /// An object was created or changed.
    Applied(Box<K>),
    /// The object of this name was deleted.
    Deleted(String),
    /// The complete list of objects.
    Replaced(Vec<K>),
    /// A list is in progress.
    Pending,
    /// The API server did not answer, or rejected the request.
    Failed(watcher::Error),
}

/// A watch ended without an error.
#[derive(Debug, Error)]
#[error("a watch ended early")]
pub struct WatchEnded;

/// Watches the namespace and applies every change; does not return.
///
/// While the API server is unavailable, the known state stays in force: a list takes effect only
/// when it is complete.
///
/// # Errors
/// When a watch ends, which is not expected.
pub async fn run_watch(
    gateway: Arc<GatewayContext>,
    client: Client,
) -> Result<Infallible, WatchEnded> {
    let namespace = gateway.settings.namespace.clone();
    let models =
        Api::<DeserializeGuard<RoutedModelDeployment>>::namespaced(client.clone(), &namespace);
    let slices = Api::<EndpointSlice>::namespaced(client, &namespace);
    let selector = format!("{MANAGED_BY}={MANAGER},{REVISION}");
    let trim = |object: &mut DeserializeGuard<RoutedModelDeployment>| {
        if let Ok(object) = &mut object.0 {
            object.trim();
        }
    };
    // An object may have 1.5 MB before it is trimmed.
    let models = watch_objects(models, watcher::Config::default().page_size(50), trim)
        .map(WatchUpdate::Models);
    let peers = watcher::Config::default().labels(&format!("kubernetes.io/service-name={GATEWAY}"));
    let peers = watch_objects(slices.clone(), peers, |_| {}).map(WatchUpdate::Peers);
    let slices = watch_objects(slices, watcher::Config::default().labels(&selector), |_| {})
        .map(WatchUpdate::Slices);

    let mut events = stream::select(stream::select(models, slices), peers);
    let mut of_gateways = HashMap::new();
    let (mut synced, mut converter, mut concerned) =
        ((false, false), ResourceConverter::default(), AffectedModels::new());
    loop {
        let mut news = match events.next().await.ok_or(WatchEnded)? {
            WatchUpdate::Models(change) => {
                synced.0 |= matches!(change, WatchChange::Replaced(_));
                let (model, gone, all) = (
                    ResourceConverter::apply_model,
                    ResourceConverter::delete_model,
                    ResourceConverter::replace_models,
                );
                apply_change("modeldeployments", change, &mut converter, model, gone, all)
            }
            WatchUpdate::Slices(change) => {
                synced.1 |= matches!(change, WatchChange::Replaced(_));
                let (slice, gone, all) = (
                    ResourceConverter::apply_slice,
                    ResourceConverter::delete_slice,
                    ResourceConverter::replace_slices,
                );
                apply_change("endpointslices", change, &mut converter, slice, gone, all)
            }
            WatchUpdate::Peers(change) => {
                // No traffic depends on these slices.
                if apply_peer_change(&mut of_gateways, change) {
                    gateway.feedback.peers.set(peers_from_slices(of_gateways.values()));
                }
                continue;
            }
        };
        concerned.append(&mut news);
        if synced == (true, true) {
            for name in std::mem::take(&mut concerned) {
                gateway.router.update_model(&name, converter.current(&name));
            }
            if gateway.set_synced() {
                tracing::info!(modeldeployments = converter.len(), "both watches are synced");
            }
        }
    }
}

/// Applies a change. Returns the affected ModelDeployments.
fn apply_change<K>(
    kind: &str,
    change: WatchChange<K>,
    converter: &mut ResourceConverter,
    applied: fn(&mut ResourceConverter, &K) -> AffectedModels,
    deleted: fn(&mut ResourceConverter, &str) -> AffectedModels,
    all: fn(&mut ResourceConverter, &[K]) -> AffectedModels,
) -> AffectedModels {
    match change {
        WatchChange::Applied(object) => applied(converter, &object),
        WatchChange::Deleted(name) => deleted(converter, &name),
        WatchChange::Replaced(objects) => all(converter, &objects),
        WatchChange::Pending => AffectedModels::new(),
        WatchChange::Failed(error) => {
            tracing::warn!(kind, %error, "watch failed: what is known stays in force");
            AffectedModels::new()
        }
    }
}

/// Applies a change of the slices of gateways. Returns whether they changed.
fn apply_peer_change(
    slices: &mut HashMap<String, EndpointSlice>,
    change: WatchChange<EndpointSlice>,
) -> bool {
    match change {
        WatchChange::Applied(slice) => _ = slices.insert(slice.name_any(), *slice),
        WatchChange::Deleted(name) => _ = slices.remove(&name),
        WatchChange::Replaced(all) => {
            *slices = all.into_iter().map(|slice| (slice.name_any(), slice)).collect()
        }
        WatchChange::Pending => return false,
        WatchChange::Failed(error) => {
            tracing::warn!(kind = "endpointslices of gateways", %error, "watch failed: what is known stays in force");
            return false;
        }
    }
    true
}

fn watch_objects<K>(
    api: Api<K>,
    config: watcher::Config,
    trim: fn(&mut K),
) -> impl Stream<Item = WatchChange<K>> + Send + Unpin
where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let mut list = Vec::new();
    let events = watcher(api, config)
        .backoff(WatchBackoff::default())
        // Managed fields are not used, and they are the largest part of an object.
        .modify(move |object| {
            object.managed_fields_mut().clear();
            trim(object);
        })
        .map(move |event| match event {
            Ok(Event::Init) => {
                list.clear();
                WatchChange::Pending
            }
            Ok(Event::InitApply(object)) => {
                list.push(object);
                WatchChange::Pending
            }
            Ok(Event::InitDone) => WatchChange::Replaced(std::mem::take(&mut list)),
            Ok(Event::Apply(object)) => WatchChange::Applied(Box::new(object)),
            Ok(Event::Delete(object)) => WatchChange::Deleted(object.name_any()),
            Err(error) => WatchChange::Failed(error),
        });
    events.boxed()
}

/// [`RETRY_BACKOFF`] in the form that kube takes.
#[derive(Debug, Default)]
struct WatchBackoff {
    failures: u32,
}

impl Iterator for WatchBackoff {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        self.failures = self.failures.saturating_add(1);
        Some(RETRY_BACKOFF.base_delay(self.failures))
    }
}

impl utils::Backoff for WatchBackoff {
    fn reset(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_bounded_and_start_again() {
        let mut pauses = WatchBackoff::default();
        let millis: Vec<_> = pauses.by_ref().take(7).map(|pause| pause.as_millis()).collect();
        assert_eq!(millis, [200, 400, 800, 1600, 3200, 5000, 5000]);
        utils::Backoff::reset(&mut pauses);
        assert_eq!(pauses.next(), Some(RETRY_BACKOFF.initial));
    }
}
