//! Which operator looks after a namespace, where several share a cluster: the holder of the Lease
//! `slipway-modeldeployments` there. Whoever comes first takes it, and another one leaves
//! everything in that namespace alone. One that is gone loses it after half an hour, or as soon as
//! somebody writes another holder into it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::runtime::WatchStreamExt;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use slipway_core::build::GATEWAY;
use slipway_core::event::PlannedEvent;
use slipway_crds::labels;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::watch;
use tokio::time::interval;

use crate::apply::with_timeout;
use crate::cache::{ObjectOwner, version_of};
use crate::children::ManagedKind;
use crate::context::ReconcileContext;
use crate::controller::ok_or_log;
use crate::error::{WriteError, WriteFault};
use crate::model_watch::GuardedModel;

/// Name of the Lease in each namespace with ModelDeployments.
pub const LEASE_NAME: &str = "slipway-modeldeployments";
/// How long it is good without renewal. An operator that is updated or moved must not lose it.
const LEASE_DURATION: SignedDuration = SignedDuration::from_mins(30);
/// When it is renewed. With a thousand namespaces that is less than two writes a second.
const RENEW_AFTER: SignedDuration = SignedDuration::from_mins(10);
/// How often is looked what has to be renewed, and whose time is over.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Who holds a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceHolder {
    /// This operator, since it renewed last at this time.
    ThisOperator(Timestamp),
    /// Nobody, or one that has not renewed in time.
    Unclaimed,
    /// Another one.
    OtherOperator(String),
}

/// Says from the Lease of a namespace who holds it. `own` is how this operator is called there.
pub fn namespace_holder(lease: Option<&Lease>, own: &str, now: Timestamp) -> NamespaceHolder {
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else {
        return NamespaceHolder::Unclaimed;
    };
    let renewed = spec.renew_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let length = spec
        .lease_duration_seconds
        .map_or(LEASE_DURATION, |it| SignedDuration::from_secs(it.into()));
    match spec.holder_identity.as_deref().unwrap_or_default() {
        "" => NamespaceHolder::Unclaimed,
        // However long ago: nobody has taken it since.
        holder if holder == own => NamespaceHolder::ThisOperator(renewed),
        holder if now.duration_since(renewed) < length => {
            NamespaceHolder::OtherOperator(holder.to_owned())
        }
        _ => NamespaceHolder::Unclaimed,
    }
}

/// The Leases of all namespaces, as they were seen or written last.
pub struct NamespaceLeases {
    identity: String,
    known: RwLock<HashMap<String, Lease>>,
    synced: watch::Sender<bool>,
    /// By UID of a ModelDeployment: which holder it was told.
    notified_holders: Mutex<HashMap<String, String>>,
}

impl NamespaceLeases {
    /// Of an operator that is called `own`, by which all its processes are one: the namespace and
    /// the name of their own Lease.
    pub fn new(own: String) -> Self {
        Self {
            identity: own,
            known: RwLock::default(),
            synced: watch::Sender::new(false),
            notified_holders: Mutex::default(),
        }
    }

    /// How this operator is called.
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Returns when all Leases that were there at the start are known.
    pub async fn wait_until_synced(&self) {
        // The sender lives as long as this.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Who holds a namespace.
    pub fn holder(&self, namespace: &str, now: Timestamp) -> NamespaceHolder {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        namespace_holder(known.get(namespace), &self.identity, now)
    }

    /// Takes a namespace where nobody holds it, with a Lease that goes with `owner`. Gives who
    /// holds it when it is another operator.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn acquire(
        &self,
        client: &Client,
        namespace: &str,
        owner: Option<OwnerReference>,
    ) -> Result<Option<String>, WriteError> {
        match self.holder(namespace, Timestamp::now()) {
            NamespaceHolder::ThisOperator(_) => return Ok(None),
            NamespaceHolder::OtherOperator(holder) => return Ok(Some(holder)),
            NamespaceHolder::Unclaimed => {}
        }
        let conflict = match self.write_lease(client, namespace, owner).await {
            Ok(()) => {
                tracing::info!(
                    namespace,
                    holder = self.identity,
                    "this operator looks after the namespace"
                );
                return Ok(None);
            }
            Err(error)
                if matches!(error.fault, WriteFault::Conflict(_) | WriteFault::NotFound(_)) =>
            {
                error
            }
            Err(error) => return Err(error),
        };
        // Another one was faster, or another reconcile of ours.
        let api = Api::<Lease>::namespaced(client.clone(), namespace);
        match with_timeout("get", "Lease", LEASE_NAME, api.get_opt(LEASE_NAME)).await? {
            Some(lease) => self.store_lease(lease),
            None => self.remove_lease(namespace),
        }
        match self.holder(namespace, Timestamp::now()) {
            NamespaceHolder::ThisOperator(_) => Ok(None),
            NamespaceHolder::OtherOperator(holder) => Ok(Some(holder)),
            NamespaceHolder::Unclaimed => Err(conflict),
        }
    }

    /// Whether a ModelDeployment has not been told yet that this one holds its namespace.
    pub fn is_new_holder(&self, uid: &str, holder: &str) -> bool {
        let mut told = self.notified_holders.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(uid.to_owned(), holder.to_owned()).as_deref() != Some(holder)
    }

    /// Forgets what a ModelDeployment was told.
    pub fn forget_holder(&self, uid: &str) {
        self.notified_holders.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Writes the Lease as ours: makes it, or replaces the one that is known, and no later one.
    async fn write_lease(
        &self,
        client: &Client,
        namespace: &str,
        owner: Option<OwnerReference>,
    ) -> Result<(), WriteError> {
        let before =
            self.known.read().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        let lease =
            renewed_lease(before.as_ref(), &self.identity, namespace, owner, Timestamp::now());
        let api = Api::<Lease>::namespaced(client.clone(), namespace);
        let params =
            PostParams { field_manager: Some(labels::MANAGER.to_owned()), ..PostParams::default() };
        let written = match before {
            Some(_) => {
                with_timeout(
                    "update",
                    "Lease",
                    LEASE_NAME,
                    api.replace(LEASE_NAME, &params, &lease),
                )
                .await?
            }
            None => {
                with_timeout("create", "Lease", LEASE_NAME, api.create(&params, &lease)).await?
            }
        };
        self.store_lease(written);
        Ok(())
    }

    /// Takes in a Lease, unless a newer one is known.
    fn store_lease(&self, lease: Lease) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let namespace = lease.namespace().unwrap_or_default();
        let newer = known
            .get(&namespace)
            .is_some_and(|it| version_of(it) > version_of(&lease) && it.uid() == lease.uid());
        if !newer {
            known.insert(namespace, lease);
        }
    }

    fn remove_lease(&self, namespace: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    /// Follows a watch until it ends.
    async fn follow_events(&self, events: impl futures::Stream<Item = Event<Lease>>) {
        let (mut events, mut listed) = (pin!(events), BTreeSet::new());
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(lease) => {
                    listed.insert(lease.namespace().unwrap_or_default());
                    self.store_lease(lease);
                }
                Event::InitDone => {
                    self.known
                        .write()
                        .unwrap_or_else(PoisonError::into_inner)
                        .retain(|it, _| listed.contains(it));
                    self.synced.send_replace(true);
                }
                Event::Apply(lease) => self.store_lease(lease),
                Event::Delete(lease) => self.remove_lease(&lease.namespace().unwrap_or_default()),
            }
        }
    }

    /// Renews what is due, and gives the Lease to the gateway's ServiceAccount, with which it goes.
    async fn renew_if_due(
        &self,
        ctx: &ReconcileContext,
        namespace: &str,
        since: Timestamp,
        now: Timestamp,
    ) {
        let account = ctx
            .views
            .known_object(ManagedKind::ServiceAccount, &ObjectOwner::gateway(namespace), GATEWAY)
            .map(|it| it.uid);
        let owner = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .and_then(|lease| lease.owner_references().first().map(|owner| owner.uid.clone()));
        let adopt = account.is_some() && account != owner;
        if !adopt && now.duration_since(since) < RENEW_AFTER {
            return;
        }
        let owner = account.map(|uid| OwnerReference {
            api_version: ServiceAccount::api_version(&()).into_owned(),
            kind: ServiceAccount::kind(&()).into_owned(),
            name: GATEWAY.to_owned(),
            uid,
            ..OwnerReference::default()
        });
        match self.write_lease(&ctx.client, namespace, owner).await {
            Ok(()) => {}
            // The watch brings what it is now.
            Err(error) => {
                tracing::warn!(namespace, %error, "the Lease of a namespace is not renewed: it is tried again")
            }
        }
    }
}

/// The Lease as this operator writes it. A holder that takes it from another counts one transition
/// more.
fn renewed_lease(
    before: Option<&Lease>,
    own: &str,
    namespace: &str,
    owner: Option<OwnerReference>,
    now: Timestamp,
) -> Lease {
    let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let ours = spec.holder_identity.as_deref() == Some(own);
    let mut metadata = before.map_or_else(ObjectMeta::default, |lease| lease.metadata.clone());
    metadata.name = Some(LEASE_NAME.to_owned());
    metadata.namespace = Some(namespace.to_owned());
    metadata
        .labels
        .get_or_insert_default()
        .insert(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned());
    metadata.managed_fields = None;
    if let Some(owner) = owner {
        metadata.owner_references = Some(vec![owner]);
    }
    let transitions = spec.lease_transitions.unwrap_or_default();
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(own.to_owned()),
            lease_duration_seconds: i32::try_from(LEASE_DURATION.as_secs()).ok(),
            acquire_time: spec.acquire_time.filter(|_| ours).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..spec
        }),
    }
}

/// Watches the Leases, renews ours, and has ModelDeployments looked at whose namespace changes
/// hands, until the operator ends.
pub async fn watch_leases(
    ctx: Arc<ReconcileContext>,
    api: Api<Lease>,
    triggers: UnboundedSender<ObjectRef<GuardedModel>>,
) {
    let config = watcher::Config::default().fields(&format!("metadata.name={LEASE_NAME}"));
    let events = watcher::watcher(api, config).default_backoff();
    let follow = ctx
        .leases
        .follow_events(events.filter_map(|event| std::future::ready(ok_or_log(event, &ctx))));
    let keep = async {
        ctx.leases.wait_until_synced().await;
        let (mut ticks, mut others) = (interval(POLL_INTERVAL), BTreeMap::new());
        loop {
            ticks.tick().await;
            check_leases(&ctx, &mut others, &triggers).await;
        }
    };
    ctx.stop.run_until_cancelled(async { tokio::join!(follow, keep) }).await;
}

async fn check_leases(
    ctx: &ReconcileContext,
    others: &mut BTreeMap<String, String>,
    triggers: &UnboundedSender<ObjectRef<GuardedModel>>,
) {
    let now = Timestamp::now();
    let mut theirs = BTreeMap::new();
    for namespace in ctx.views.models.namespaces() {
        match ctx.leases.holder(&namespace, now) {
            NamespaceHolder::ThisOperator(since) => {
                ctx.leases.renew_if_due(ctx, &namespace, since, now).await
            }
            NamespaceHolder::OtherOperator(holder) => drop(theirs.insert(namespace, holder)),
            NamespaceHolder::Unclaimed => {}
        }
    }
    let both: BTreeSet<&String> = others.keys().chain(theirs.keys()).collect();
    for namespace in both.into_iter().filter(|it| others.get(*it) != theirs.get(*it)) {
        match theirs.get(namespace) {
            Some(holder) => {
                tracing::warn!(
                    namespace,
                    holder,
                    "another operator looks after the namespace: it is left alone"
                )
            }
            None => {
                tracing::info!(namespace, "no other operator looks after the namespace any more")
            }
        }
        ctx.trigger_namespace(namespace, triggers);
    }
    ctx.metrics.namespaces_of_others.set(i64::try_from(theirs.len()).unwrap_or(i64::MAX));
    *others = theirs;
}

/// What a ModelDeployment is told whose namespace another operator than `own` holds.
pub fn other_operator_note(namespace: &str, own: &str, holder: &str) -> PlannedEvent {
    PlannedEvent {
        warning: true,
        reason: "OtherOperator".to_owned(),
        action: "LeaveAlone".to_owned(),
        note: format!(
            "the operator {holder} looks after namespace {namespace}, as Lease {LEASE_NAME} there says; this one, {own}, leaves it alone. Write {own} as holderIdentity into \
             that Lease to hand it over"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T01:00:00Z";

    fn lease(holder: &str, renewed: &str) -> Lease {
        let object = serde_json::json!({
            "metadata": {"name": LEASE_NAME, "namespace": "lab", "resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 1800, "renewTime": renewed, "leaseTransitions": 2}
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_namespace_is_of_who_came_first_until_it_is_gone_for_half_an_hour() {
        let now: Timestamp = NOW.parse().unwrap();
        let (fresh, old) = ("2026-01-01T00:45:00.000000Z", "2026-01-01T00:29:00.000000Z");
        assert_eq!(namespace_holder(None, "a", now), NamespaceHolder::Unclaimed);
        assert_eq!(
            namespace_holder(Some(&lease("", fresh)), "a", now),
            NamespaceHolder::Unclaimed,
            "given back"
        );
        assert_eq!(
            namespace_holder(Some(&lease("b", fresh)), "a", now),
            NamespaceHolder::OtherOperator("b".into())
        );
        assert_eq!(namespace_holder(Some(&lease("b", old)), "a", now), NamespaceHolder::Unclaimed);
        assert!(
            matches!(
                namespace_holder(Some(&lease("a", old)), "a", now),
                NamespaceHolder::ThisOperator(_)
            ),
            "nobody took it meanwhile"
        );
    }

    #[test]
    fn who_takes_it_from_another_counts_a_transition_and_keeps_what_others_wrote() {
        let now: Timestamp = NOW.parse().unwrap();
        let mut before = lease("b", NOW);
        before.metadata.annotations = Some([("theirs".to_owned(), "yes".to_owned())].into());
        let taken = renewed_lease(Some(&before), "a", "lab", None, now);
        assert_eq!(
            taken.metadata.resource_version.as_deref(),
            Some("7"),
            "only the one that was seen is replaced"
        );
        assert_eq!(taken.metadata.annotations, before.metadata.annotations);
        let spec = taken.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(3)));
        let later = now + RENEW_AFTER;
        let again = renewed_lease(Some(&taken), "a", "lab", None, later).spec.unwrap();
        assert_eq!((again.lease_transitions, again.acquire_time), (Some(3), Some(MicroTime(now))));
        assert_eq!(again.renew_time, Some(MicroTime(later)));
    }

    #[test]
    fn an_older_lease_of_the_watch_takes_no_newer_ones_place() {
        let leases = NamespaceLeases::new("a".into());
        let of = |holder: &str, version: &str| {
            let mut lease = lease(holder, NOW);
            lease.metadata.resource_version = Some(version.into());
            lease
        };
        leases.store_lease(of("a", "12"));
        leases.store_lease(of("b", "11"));
        let now: Timestamp = NOW.parse().unwrap();
        assert!(matches!(leases.holder("lab", now), NamespaceHolder::ThisOperator(_)));
        leases.store_lease(of("b", "13"));
        assert_eq!(leases.holder("lab", now), NamespaceHolder::OtherOperator("b".into()));
        leases.remove_lease("lab");
        assert_eq!(leases.holder("lab", now), NamespaceHolder::Unclaimed);
    }

    #[test]
    fn a_holder_is_told_once() {
        let leases = NamespaceLeases::new("a".into());
        assert!(
            leases.is_new_holder("u", "b")
                && !leases.is_new_holder("u", "b")
                && leases.is_new_holder("u", "c")
        );
        leases.forget_holder("u");
        assert!(leases.is_new_holder("u", "c"));
    }
}
