//! Watches over the updates of gateways, and takes away what no ModelDeployment uses any more. What is decided is decided by
//! [`slipway_core::gateway_rollout`].

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

use crate::apply::limited;
use crate::cache::{Cache, Owner};
use crate::children::Child;
use crate::context::Context;
use crate::error::{Fault, WriteError};
use crate::main_watch::Guarded;
use crate::namespace_lease::Standing;
use crate::views::Views;

/// How often is looked.
const EVERY: Duration = Duration::from_secs(2);
/// Requests are counted in buckets of so many looks, as many of them as make ten minutes.
const LOOKS: u32 = 5;
const BUCKETS: usize = 60;
/// How long the gateway of a namespace without ModelDeployments stays. One that is replaced (`kubectl replace --force`) finds it there.
const GRACE: Duration = Duration::from_secs(60);

/// Which gateways may be updated now, by namespace.
#[derive(Default)]
pub struct Verdicts(RwLock<BTreeMap<String, UpdatePermission>>);

impl Verdicts {
    /// What was decided for a namespace. Before anything was, it waits.
    pub fn of(&self, namespace: &str) -> UpdatePermission {
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        all.get(namespace).cloned().unwrap_or(UpdatePermission::Waiting)
    }

    /// Takes in what was decided. Gives the namespaces for which that is news: those whose gateway is to be updated now, or that have something else to say than
    /// before. At a start that is none, however many gateways there are, when all of them are up to date.
    fn replace(&self, new: BTreeMap<String, UpdatePermission>, current: &BTreeSet<String>) -> Vec<String> {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let said = |update: Option<&UpdatePermission>| matches!(update, Some(UpdatePermission::Stopped(_)));
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
struct Recent(VecDeque<ClientRequests>);

impl Recent {
    fn sum(&self) -> ClientRequests {
        self.0.iter().fold(ClientRequests::default(), |sum, it| add(sum, *it))
    }

    fn add(&mut self, requests: ClientRequests) {
        match self.0.back_mut() {
            Some(last) => *last = add(*last, requests),
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

fn add(a: ClientRequests, b: ClientRequests) -> ClientRequests {
    ClientRequests { ended: a.ended.saturating_add(b.ended), failed: a.failed.saturating_add(b.failed) }
}

/// What this process has seen of one gateway.
#[derive(Default)]
struct Seen {
    /// Since when it has been allowed to be updated and was not.
    allowed_at: Option<Timestamp>,
    /// It was up to date until the settings of its namespace changed: that is no version whose faults could spread.
    own_change: bool,
    updated_at: Option<Timestamp>,
    /// Its pods were not ready when it had another template last.
    broken_before: bool,
    /// It had no other template since it came, which this process has seen.
    made_with_it: bool,
    /// While it had another template.
    before: Recent,
    /// Since then.
    after: Recent,
}

/// What this process remembers.
#[derive(Default)]
struct Watcher {
    gateways: BTreeMap<String, Seen>,
    /// By UID of a pod: what it told last.
    pods: HashMap<String, ClientRequests>,
    looks: u32,
    /// The settings of a namespace, and the stamp that its gateway has by them, by namespace.
    stamps: HashMap<String, (Arc<PlanSettings>, String)>,
    /// Since when a namespace has a gateway and no ModelDeployment.
    unused: BTreeMap<String, Instant>,
}

/// Looks until the operator ends.
pub async fn run(ctx: Arc<Context>, mode: UpdateMode, triggers: UnboundedSender<ObjectRef<Guarded>>) {
    if ctx.stop.run_until_cancelled(ctx.wait_until_synced()).await != Some(true) {
        return;
    }
    let (mut watcher, mut ticks) = (Watcher::default(), interval(EVERY));
    while ctx.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let gateways = watcher.look(&ctx, Timestamp::now());
        let mut decision = decide_updates(&gateways, mode, Timestamp::now());
        watcher.decided(&mut decision.updates, Timestamp::now());
        ctx.metrics.gateway_troubles(&decision.problems);
        let current = gateways.iter().filter(|it| it.updated_at.is_some()).map(|it| it.namespace.clone()).collect();
        for namespace in ctx.views.gateway_updates.replace(decision.updates, &current) {
            ctx.trigger_namespace(&namespace, &triggers);
        }
        let unused = watcher.unused(&ctx.views, Instant::now()).into_iter();
        for namespace in unused.filter(|namespace| !is_of_another(&ctx, namespace)) {
            if let Err(error) = sweep(&ctx, &namespace).await {
                tracing::warn!(namespace, %error, "a gateway that nobody uses cannot be deleted: it is tried again");
            }
        }
    }
}

fn is_of_another(ctx: &Context, namespace: &str) -> bool {
    matches!(ctx.leases.standing(namespace, Timestamp::now()), Standing::Theirs(_))
}

impl Watcher {
    fn look(&mut self, ctx: &Context, now: Timestamp) -> Vec<NamespaceGateway> {
        self.looks += 1;
        let mut namespaces = ctx.views.deployments.gateways();
        // Another operator's are its own.
        namespaces.retain(|(namespace, _)| !is_of_another(ctx, namespace));
        let there: BTreeSet<_> = namespaces.iter().map(|(namespace, _)| namespace.as_str()).collect();
        self.gateways.retain(|namespace, _| there.contains(namespace.as_str()));
        self.count(ctx);
        self.stamps.retain(|namespace, _| there.contains(namespace.as_str()));
        let looked = namespaces.iter().filter_map(|(namespace, view)| {
            let new = || Seen { made_with_it: self.looks > 1, ..Seen::default() };
            let seen = self.gateways.entry(namespace.clone()).or_insert_with(new);
            let settings = ctx.settings.of(namespace);
            // What cannot be read leaves the gateway as it is; it is in nobody's way.
            if settings.gateway_problem.is_some() {
                return None;
            }
            let stamp = || (Arc::clone(&settings), gateway_applied_hash(namespace, &settings));
            let known = self.stamps.entry(namespace.clone()).or_insert_with(stamp);
            if !Arc::ptr_eq(&known.0, &settings) {
                seen.own_change |= view.applied_hash == known.1;
                *known = stamp();
            }
            if view.applied_hash == known.1 {
                seen.own_change = false;
                seen.updated_at.get_or_insert(now);
            } else {
                // Another version of the operator had updated it meanwhile, or it was changed back.
                if seen.updated_at.take().is_some() {
                    seen.before = std::mem::take(&mut seen.after);
                }
                (seen.broken_before, seen.made_with_it) = (!view.rolled_out, seen.own_change);
            }
            Some(NamespaceGateway {
                namespace: namespace.clone(),
                allowed_at: seen.allowed_at,
                models: ctx.views.claims.count(namespace),
                updated_at: seen.updated_at,
                rolled_out: view.rolled_out,
                broken_before: seen.broken_before,
                created_with_version: seen.made_with_it,
                requests_before: seen.before.sum(),
                requests_after: seen.after.sum(),
            })
        });
        looked.collect()
    }

    /// Notes what was decided, and lets those go on that changed their own settings.
    fn decided(&mut self, updates: &mut BTreeMap<String, UpdatePermission>, now: Timestamp) {
        for (namespace, seen) in &mut self.gateways {
            let Some(update) = updates.get_mut(namespace) else { continue };
            if seen.own_change {
                *update = UpdatePermission::Allowed;
            }
            let waits = *update == UpdatePermission::Allowed && seen.updated_at.is_none();
            seen.allowed_at = waits.then(|| seen.allowed_at.unwrap_or(now));
        }
    }

    /// Adds what pods have told since the last look.
    fn count(&mut self, ctx: &Context) {
        if self.looks.is_multiple_of(LOOKS) {
            self.gateways.values_mut().for_each(|seen| match seen.updated_at {
                Some(_) => seen.after.next_bucket(),
                None => seen.before.next_bucket(),
            });
        }
        let told = ctx.links.client_requests();
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

    /// Namespaces whose gateway nobody has used for a while, and that the garbage collector does not see.
    fn unused(&mut self, views: &Views, now: Instant) -> Vec<String> {
        let left = |cache: &Cache<ObjectView>| {
            let all = cache.gateways().into_iter();
            all.filter(|(_, view)| view.owners.is_empty()).map(|(namespace, _)| namespace).collect::<Vec<_>>()
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
        self.unused.retain(|namespace, _| unused.contains(namespace));
        for namespace in unused {
            self.unused.entry(namespace).or_insert(now);
        }
        self.unused.iter().filter(|(_, since)| now.duration_since(**since) >= GRACE).map(|(it, _)| it.clone()).collect()
    }
}

/// Deletes the objects of a gateway that have no owner.
async fn sweep(ctx: &Context, namespace: &str) -> Result<(), WriteError> {
    tracing::info!(namespace, "the gateway has no ModelDeployment any more and is deleted");
    delete::<Deployment>(ctx, namespace, Child::Deployment).await?;
    delete::<HorizontalPodAutoscaler>(ctx, namespace, Child::HorizontalPodAutoscaler).await?;
    delete::<PodDisruptionBudget>(ctx, namespace, Child::PodDisruptionBudget).await?;
    delete::<Service>(ctx, namespace, Child::Service).await?;
    delete::<NetworkPolicy>(ctx, namespace, Child::NetworkPolicy).await?;
    delete::<RoleBinding>(ctx, namespace, Child::RoleBinding).await?;
    delete::<ServiceAccount>(ctx, namespace, Child::ServiceAccount).await
}

async fn delete<K>(ctx: &Context, namespace: &str, child: Child) -> Result<(), WriteError>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let there = ctx.views.known(child, &Owner::gateway(namespace), GATEWAY);
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
    match limited("delete", child.kind(), GATEWAY, api.delete(GATEWAY, &params)).await {
        Ok(_) | Err(WriteError { fault: Fault::NotFound(_) | Fault::Conflict(_), .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_anything_was_decided_gateways_stay_as_they_are() {
        let verdicts = Verdicts::default();
        assert_eq!(verdicts.of("a"), UpdatePermission::Waiting);
        let (none, a) = (BTreeSet::new(), BTreeSet::from(["a".to_owned()]));
        let all = |update: UpdatePermission| BTreeMap::from([("a".to_owned(), update)]);
        assert_eq!(verdicts.replace(all(UpdatePermission::Allowed), &none), ["a"]);
        assert!(verdicts.replace(all(UpdatePermission::Allowed), &none).is_empty());
        assert_eq!(verdicts.of("a"), UpdatePermission::Allowed);
        // What is up to date need not be looked at, unless it has said that it is not.
        assert!(Verdicts::default().replace(all(UpdatePermission::Allowed), &a).is_empty());
        verdicts.replace(all(UpdatePermission::Stopped("x".into())), &none);
        assert_eq!(verdicts.replace(all(UpdatePermission::Allowed), &a), ["a"]);
    }

    #[test]
    fn requests_are_forgotten_after_ten_minutes() {
        let mut recent = Recent::default();
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
