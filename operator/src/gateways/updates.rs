//! Supervises the updates of gateways, and deletes gateways that no ModelDeployment uses. The
//! decisions are made by [`slipway_core::gateway_rollout`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use slipway_core::gateway_rollout::{ClientRequests, NamespaceGateway, UpdateMode, decide_updates};
use slipway_core::observed::UpdatePermission;
use slipway_gateway_streams::GatewayStreams;
use slipway_objects::gateway_applied_hash;
use slipway_objects::settings::PlanSettings;
use tokio::time::{Instant, interval};

use crate::gateways::unused::{UnusedGateways, delete_gateway};
use crate::namespaces::lease_object::NamespaceHolder;
use crate::namespaces::leases::NamespaceLeases;
use crate::namespaces::settings::NamespaceSettings;
use crate::watch::context::WatchContext;

/// Interval between polls.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Each bucket of request counts covers this many polls; [`BUCKETS`] buckets cover ten minutes.
const POLLS_PER_BUCKET: u32 = 5;
const BUCKETS: usize = 60;

/// Request counts of the last ten minutes.
#[derive(Default)]
struct RecentRequests(VecDeque<ClientRequests>);

impl RecentRequests {
    fn sum(&self) -> ClientRequests {
        self.0.iter().fold(ClientRequests::default(), |sum, it| add_requests(sum, *it))
    }

    fn add(&mut self, requests: ClientRequests) {
        match self.0.back_mut() {
            Some(last) => *last = add_requests(*last, requests),
            None => self.0.push_back(requests),
        }
    }

    fn next_bucket(&mut self) {
        self.0.push_back(ClientRequests::default());
        while self.0.len() > BUCKETS {
            self.0.pop_front();
        }
    }
}

fn add_requests(a: ClientRequests, b: ClientRequests) -> ClientRequests {
    ClientRequests {
        ended: a.ended.saturating_add(b.ended),
        failed: a.failed.saturating_add(b.failed),
    }
}

/// This process's observations of one gateway.
#[derive(Default)]
struct GatewayHistory {
    /// Since when the gateway has had the permission to update without having updated.
    allowed_at: Option<Timestamp>,
    /// The gateway was up to date until the settings of its namespace changed: this is not a new
    /// version whose faults could spread to other namespaces.
    settings_changed: bool,
    updated_at: Option<Timestamp>,
    /// Its pods were not ready with the previous template.
    broken_before: bool,
    /// This process has seen its creation, and it has had the same template since.
    created_with_template: bool,
    /// Requests with the previous template.
    before: RecentRequests,
    /// Requests with the current template.
    after: RecentRequests,
}

/// State of the supervision, in memory only.
#[derive(Default)]
struct UpdateWatcher {
    gateways: BTreeMap<String, GatewayHistory>,
    /// Last reported request counts, by pod UID.
    pods: HashMap<String, ClientRequests>,
    polls: u32,
    /// The settings of each namespace, and the hash of the gateway that is built from them.
    stamps: HashMap<String, (Arc<PlanSettings>, String)>,
    unused: UnusedGateways,
}

/// Dependencies of the update supervision.
pub struct GatewayUpdateContext {
    pub watch: WatchContext,
    pub settings: Arc<NamespaceSettings>,
    /// Which operator holds each namespace.
    pub leases: Arc<NamespaceLeases>,
    pub streams: Arc<GatewayStreams>,
}

impl GatewayUpdateContext {
    async fn wait_until_synced(&self) -> bool {
        self.watch.views.wait_until_synced().await && self.settings.wait_until_synced().await
    }

    fn is_foreign_namespace(&self, namespace: &str) -> bool {
        let holder = self.leases.holder(namespace, Timestamp::now());
        matches!(holder, NamespaceHolder::OtherOperator(_))
    }
}

/// Polls until the operator stops.
pub async fn watch_updates(ctx: GatewayUpdateContext, mode: UpdateMode) {
    if ctx.watch.stop.run_until_cancelled(ctx.wait_until_synced()).await != Some(true) {
        return;
    }
    let (mut watcher, mut ticks) = (UpdateWatcher::default(), interval(POLL_INTERVAL));
    while ctx.watch.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let gateways = watcher.poll_gateways(&ctx, Timestamp::now());
        let mut decision = decide_updates(&gateways, mode, Timestamp::now());
        watcher.record_decisions(&mut decision.updates, Timestamp::now());
        ctx.watch.metrics.show_gateway_troubles(&decision.problems);
        let current = gateways
            .iter()
            .filter(|it| it.updated_at.is_some())
            .map(|it| it.namespace.clone())
            .collect();
        for namespace in ctx.watch.views.gateway_updates.replace(decision.updates, &current) {
            ctx.watch.trigger_namespace(&namespace);
        }
        let unused = watcher.unused.poll(&ctx.watch.views, Instant::now()).into_iter();
        for namespace in unused.filter(|namespace| !ctx.is_foreign_namespace(namespace)) {
            if let Err(error) = delete_gateway(&ctx.watch, &namespace).await {
                tracing::warn!(namespace, %error, "a gateway that nobody uses cannot be deleted: it is tried again");
            }
        }
    }
}

impl UpdateWatcher {
    fn poll_gateways(
        &mut self,
        ctx: &GatewayUpdateContext,
        now: Timestamp,
    ) -> Vec<NamespaceGateway> {
        self.polls += 1;
        let mut namespaces = ctx.watch.views.deployments.gateways();
        // The gateways of another operator's namespaces are not ours to update.
        namespaces.retain(|(namespace, _)| !ctx.is_foreign_namespace(namespace));
        let there: BTreeSet<_> =
            namespaces.iter().map(|(namespace, _)| namespace.as_str()).collect();
        self.gateways.retain(|namespace, _| there.contains(namespace.as_str()));
        self.count_requests(ctx);
        self.stamps.retain(|namespace, _| there.contains(namespace.as_str()));
        let looked = namespaces.iter().filter_map(|(namespace, view)| {
            let new = || GatewayHistory {
                created_with_template: self.polls > 1,
                ..GatewayHistory::default()
            };
            let seen = self.gateways.entry(namespace.clone()).or_insert_with(new);
            let settings = ctx.settings.for_namespace(namespace);
            // When the settings cannot be parsed, the gateway stays as it is and does not block the
            // updates of others.
            if settings.gateway_problem.is_some() {
                return None;
            }
            let stamp = || (Arc::clone(&settings), gateway_applied_hash(namespace, &settings));
            let known = self.stamps.entry(namespace.clone()).or_insert_with(stamp);
            if !Arc::ptr_eq(&known.0, &settings) {
                seen.settings_changed |= view.applied_hash == known.1;
                *known = stamp();
            }
            if view.applied_hash == known.1 {
                seen.settings_changed = false;
                seen.updated_at.get_or_insert(now);
            } else {
                // Another version of the operator has updated the gateway in the meantime, or the
                // change was reverted.
                if seen.updated_at.take().is_some() {
                    seen.before = std::mem::take(&mut seen.after);
                }
                (seen.broken_before, seen.created_with_template) =
                    (!view.rolled_out, seen.settings_changed);
            }
            Some(NamespaceGateway {
                namespace: namespace.clone(),
                allowed_at: seen.allowed_at,
                models: ctx.watch.views.claims.count_models(namespace),
                updated_at: seen.updated_at,
                rolled_out: view.rolled_out,
                broken_before: seen.broken_before,
                created_with_version: seen.created_with_template,
                requests_before: seen.before.sum(),
                requests_after: seen.after.sum(),
            })
        });
        looked.collect()
    }

    /// Records the decisions, and allows the update of each namespace that changed its own
    /// settings.
    fn record_decisions(
        &mut self,
        updates: &mut BTreeMap<String, UpdatePermission>,
        now: Timestamp,
    ) {
        for (namespace, seen) in &mut self.gateways {
            let Some(update) = updates.get_mut(namespace) else { continue };
            if seen.settings_changed {
                *update = UpdatePermission::Allowed;
            }
            let waits = *update == UpdatePermission::Allowed && seen.updated_at.is_none();
            seen.allowed_at = waits.then(|| seen.allowed_at.unwrap_or(now));
        }
    }

    /// Adds the requests that pods have reported since the last poll.
    fn count_requests(&mut self, ctx: &GatewayUpdateContext) {
        if self.polls.is_multiple_of(POLLS_PER_BUCKET) {
            self.gateways.values_mut().for_each(|seen| match seen.updated_at {
                Some(_) => seen.after.next_bucket(),
                None => seen.before.next_bucket(),
            });
        }
        let counts = ctx.streams.client_requests();
        self.pods.retain(|uid, _| counts.contains_key(uid));
        for (uid, (namespace, now)) in counts {
            // Requests that a pod counted before its first report in this process are unknown.
            let before = self.pods.insert(uid, now).unwrap_or(now);
            let new = ClientRequests {
                ended: now.ended.saturating_sub(before.ended),
                failed: now.failed.saturating_sub(before.failed),
            };
            if let Some(seen) = self.gateways.get_mut(&namespace) {
                if seen.updated_at.is_some() { seen.after.add(new) } else { seen.before.add(new) }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_forgotten_after_ten_minutes() {
        let mut recent = RecentRequests::default();
        recent.add(ClientRequests { ended: 7, failed: 3 });
        for _ in 0..BUCKETS - 1 {
            recent.next_bucket();
        }
        recent.add(ClientRequests { ended: 1, failed: 0 });
        assert_eq!(recent.sum(), ClientRequests { ended: 8, failed: 3 });
        recent.next_bucket();
        assert_eq!(recent.sum(), ClientRequests { ended: 1, failed: 0 });
    }
}
