//! Watches over the updates of gateways, and takes away what no ModelDeployment uses any more. What
//! is decided is decided by [`slipway_core::gateway_rollout`].

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{DeleteParams, Preconditions};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use slipway_core::build::{GATEWAY, gateway_applied_hash};
use slipway_core::gateway_rollout::{ClientRequests, NamespaceGateway, UpdateMode, decide_updates};
use slipway_core::observed::{ObjectView, UpdatePermission};
use slipway_core::settings::PlanSettings;
use tokio::sync::mpsc::UnboundedSender;
use tokio::time::{Instant, interval};

use crate::apply::with_timeout;
use crate::cache::{ObjectOwner, ViewCache};
use crate::children::ManagedKind;
use crate::context::ReconcileContext;
use crate::error::{WriteError, WriteFault};
use crate::model_watch::GuardedModel;
use crate::namespace_lease::NamespaceHolder;
use crate::views::ClusterViews;

/// How often is looked.
const POLL_INTERVAL: Duration = Duration::from_secs(2);
/// Requests are counted in buckets of so many looks, as many of them as make ten minutes.
const POLLS_PER_BUCKET: u32 = 5;
const BUCKETS: usize = 60;
/// How long the gateway of a namespace without ModelDeployments stays. One that is replaced
/// (`kubectl replace --force`) finds it there.
const UNUSED_GRACE_PERIOD: Duration = Duration::from_secs(60);

/// Which gateways may be updated now, by namespace.
#[derive(Default)]
pub struct UpdateVerdicts(RwLock<BTreeMap<String, UpdatePermission>>);

impl UpdateVerdicts {
    /// What was decided for a namespace. Before anything was, it waits.
    pub fn for_namespace(&self, namespace: &str) -> UpdatePermission {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(namespace).cloned().unwrap_or(UpdatePermission::Waiting)
    }

    /// Takes in what was decided. Gives the namespaces for which that is news: those whose gateway
    /// is to be updated now, or that have something else to say than before. At a start that is
    /// none, however many gateways there are, when all of them are up to date.
    fn replace(
        &self,
        new: BTreeMap<String, UpdatePermission>,
        current: &BTreeSet<String>,
    ) -> Vec<String> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
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

/// Requests in the last minutes.
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

/// What this process has seen of one gateway.
#[derive(Default)]
struct GatewayHistory {
    /// Since when it has been allowed to be updated and was not.
    allowed_at: Option<Timestamp>,
    /// It was up to date until the settings of its namespace changed: that is no version whose
    /// faults could spread.
    settings_changed: bool,
    updated_at: Option<Timestamp>,
    /// Its pods were not ready when it had another template last.
    broken_before: bool,
    /// It had no other template since it came, which this process has seen.
    created_with_template: bool,
    /// While it had another template.
    before: RecentRequests,
    /// Since then.
    after: RecentRequests,
}

/// What this process remembers.
#[derive(Default)]
struct UpdateWatcher {
    gateways: BTreeMap<String, GatewayHistory>,
    /// By UID of a pod: what it told last.
    pods: HashMap<String, ClientRequests>,
    polls: u32,
    /// The settings of a namespace, and the stamp that its gateway has by them, by namespace.
    stamps: HashMap<String, (Arc<PlanSettings>, String)>,
    /// Since when a namespace has a gateway and no ModelDeployment.
    unused_since: BTreeMap<String, Instant>,
}

/// Looks until the operator ends.
pub async fn watch_updates(
    ctx: Arc<ReconcileContext>,
    mode: UpdateMode,
    triggers: UnboundedSender<ObjectRef<GuardedModel>>,
) {
    if ctx.stop.run_until_cancelled(ctx.wait_until_synced()).await != Some(true) {
        return;
    }
    let (mut watcher, mut ticks) = (UpdateWatcher::default(), interval(POLL_INTERVAL));
    while ctx.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let gateways = watcher.poll_gateways(&ctx, Timestamp::now());
        let mut decision = decide_updates(&gateways, mode, Timestamp::now());
        watcher.record_decisions(&mut decision.updates, Timestamp::now());
        ctx.metrics.show_gateway_troubles(&decision.problems);
        let current = gateways
            .iter()
            .filter(|it| it.updated_at.is_some())
            .map(|it| it.namespace.clone())
            .collect();
        for namespace in ctx.views.gateway_updates.replace(decision.updates, &current) {
            ctx.trigger_namespace(&namespace, &triggers);
        }
        let unused = watcher.unused_namespaces(&ctx.views, Instant::now()).into_iter();
        for namespace in unused.filter(|namespace| !is_foreign_namespace(&ctx, namespace)) {
            if let Err(error) = delete_gateway(&ctx, &namespace).await {
                tracing::warn!(namespace, %error, "a gateway that nobody uses cannot be deleted: it is tried again");
            }
        }
    }
}

fn is_foreign_namespace(ctx: &ReconcileContext, namespace: &str) -> bool {
    matches!(ctx.leases.holder(namespace, Timestamp::now()), NamespaceHolder::OtherOperator(_))
}

impl UpdateWatcher {
    fn poll_gateways(&mut self, ctx: &ReconcileContext, now: Timestamp) -> Vec<NamespaceGateway> {
        self.polls += 1;
        let mut namespaces = ctx.views.deployments.gateways();
        // Another operator's are its own.
        namespaces.retain(|(namespace, _)| !is_foreign_namespace(ctx, namespace));
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
            // What cannot be read leaves the gateway as it is; it is in nobody's way.
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
                // Another version of the operator had updated it meanwhile, or it was changed back.
                if seen.updated_at.take().is_some() {
                    seen.before = std::mem::take(&mut seen.after);
                }
                (seen.broken_before, seen.created_with_template) =
                    (!view.rolled_out, seen.settings_changed);
            }
            Some(NamespaceGateway {
                namespace: namespace.clone(),
                allowed_at: seen.allowed_at,
                models: ctx.views.claims.count_models(namespace),
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

    /// Notes what was decided, and lets those go on that changed their own settings.
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

    /// Adds what pods have told since the last look.
    fn count_requests(&mut self, ctx: &ReconcileContext) {
        if self.polls.is_multiple_of(POLLS_PER_BUCKET) {
            self.gateways.values_mut().for_each(|seen| match seen.updated_at {
                Some(_) => seen.after.next_bucket(),
                None => seen.before.next_bucket(),
            });
        }
        let told = ctx.gateway_streams.client_requests();
        self.pods.retain(|uid, _| told.contains_key(uid));
        for (uid, (namespace, now)) in told {
            // What a pod had counted before it was heard first was not seen.
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

    /// Namespaces whose gateway nobody has used for a while, and that the garbage collector does
    /// not see.
    fn unused_namespaces(&mut self, views: &ClusterViews, now: Instant) -> Vec<String> {
        let left = |cache: &ViewCache<ObjectView>| {
            let all = cache.gateways().into_iter();
            all.filter(|(_, view)| view.owners.is_empty())
                .map(|(namespace, _)| namespace)
                .collect::<Vec<_>>()
        };
        let caches = [
            &views.deployments,
            &views.autoscalers,
            &views.disruption_budgets,
            &views.services,
            &views.network_policies,
            &views.role_bindings,
            &views.service_accounts,
        ];
        let all: BTreeSet<String> = caches.into_iter().flat_map(left).collect();
        let unused: BTreeSet<String> =
            all.into_iter().filter(|namespace| !views.models.has_models(namespace)).collect();
        self.unused_since.retain(|namespace, _| unused.contains(namespace));
        for namespace in unused {
            self.unused_since.entry(namespace).or_insert(now);
        }
        self.unused_since
            .iter()
            .filter(|(_, since)| now.duration_since(**since) >= UNUSED_GRACE_PERIOD)
            .map(|(it, _)| it.clone())
            .collect()
    }
}

/// Deletes the objects of a gateway that have no owner.
async fn delete_gateway(ctx: &ReconcileContext, namespace: &str) -> Result<(), WriteError> {
    tracing::info!(namespace, "the gateway has no ModelDeployment any more and is deleted");
    delete_orphan::<Deployment>(ctx, namespace, ManagedKind::Deployment).await?;
    delete_orphan::<HorizontalPodAutoscaler>(ctx, namespace, ManagedKind::HorizontalPodAutoscaler)
        .await?;
    delete_orphan::<PodDisruptionBudget>(ctx, namespace, ManagedKind::PodDisruptionBudget).await?;
    delete_orphan::<Service>(ctx, namespace, ManagedKind::Service).await?;
    delete_orphan::<NetworkPolicy>(ctx, namespace, ManagedKind::NetworkPolicy).await?;
    delete_orphan::<RoleBinding>(ctx, namespace, ManagedKind::RoleBinding).await?;
    delete_orphan::<ServiceAccount>(ctx, namespace, ManagedKind::ServiceAccount).await
}

async fn delete_orphan<K>(
    ctx: &ReconcileContext,
    namespace: &str,
    child: ManagedKind,
) -> Result<(), WriteError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let there = ctx.views.known_object(child, &ObjectOwner::gateway(namespace), GATEWAY);
    let Some(known) = there.filter(|known| known.owners.is_empty()) else { return Ok(()) };
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: Some(known.uid),
            // As it was seen: one that has got an owner again stays.
            resource_version: Some(known.version.to_string()),
        }),
        ..DeleteParams::background()
    };
    let api = Api::<K>::namespaced(ctx.client.clone(), namespace);
    match with_timeout("delete", child.kind_name(), GATEWAY, api.delete(GATEWAY, &params)).await {
        Ok(_)
        | Err(WriteError { fault: WriteFault::NotFound(_) | WriteFault::Conflict(_), .. }) => {
            Ok(())
        }
        Err(error) => Err(error),
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
