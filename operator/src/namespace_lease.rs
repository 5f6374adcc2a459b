//! Which operator looks after a namespace, where several share a cluster: the holder of the Lease `slipway-modeldeployments` there. Whoever comes first takes it, and
//! another one leaves everything in that namespace alone. One that is gone loses it after half an hour, or as soon as somebody writes another holder into it.

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

use crate::apply::limited;
use crate::cache::{Owner, version_of};
use crate::children::Child;
use crate::context::Context;
use crate::controller::logged;
use crate::error::{Fault, WriteError};
use crate::main_watch::Guarded;

/// Name of the Lease in each namespace with ModelDeployments.
pub const NAME: &str = "slipway-modeldeployments";
/// How long it is good without renewal. An operator that is updated or moved must not lose it.
const DURATION: SignedDuration = SignedDuration::from_mins(30);
/// When it is renewed. With a thousand namespaces that is less than two writes a second.
const RENEW: SignedDuration = SignedDuration::from_mins(10);
/// How often is looked what has to be renewed, and whose time is over.
const EVERY: Duration = Duration::from_secs(2);

/// Who holds a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// This operator, since it renewed last at this time.
    Ours(Timestamp),
    /// Nobody, or one that has not renewed in time.
    Free,
    /// Another one.
    Theirs(String),
}

/// Says from the Lease of a namespace who holds it. `own` is how this operator is called there.
pub fn standing(lease: Option<&Lease>, own: &str, now: Timestamp) -> Standing {
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else { return Standing::Free };
    let renewed = spec.renew_time.as_ref().map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    let length = spec.lease_duration_seconds.map_or(DURATION, |it| SignedDuration::from_secs(it.into()));
    match spec.holder_identity.as_deref().unwrap_or_default() {
        "" => Standing::Free,
        // However long ago: nobody has taken it since.
        holder if holder == own => Standing::Ours(renewed),
        holder if now.duration_since(renewed) < length => Standing::Theirs(holder.to_owned()),
        _ => Standing::Free,
    }
}

/// The Leases of all namespaces, as they were seen or written last.
pub struct NamespaceLeases {
    own: String,
    known: RwLock<HashMap<String, Lease>>,
    synced: watch::Sender<bool>,
    /// By UID of a ModelDeployment: which holder it was told.
    told: Mutex<HashMap<String, String>>,
}

impl NamespaceLeases {
    /// Of an operator that is called `own`, by which all its processes are one: the namespace and the name of their own Lease.
    pub fn new(own: String) -> Self {
        Self { own, known: RwLock::default(), synced: watch::Sender::new(false), told: Mutex::default() }
    }

    /// How this operator is called.
    pub fn own(&self) -> &str {
        &self.own
    }

    /// Returns when all Leases that were there at the start are known.
    pub async fn wait_until_synced(&self) {
        // The sender lives as long as this.
        let _ = self.synced.subscribe().wait_for(|synced| *synced).await;
    }

    /// Who holds a namespace.
    pub fn standing(&self, namespace: &str, now: Timestamp) -> Standing {
        let known = self.known.read().unwrap_or_else(PoisonError::into_inner);
        standing(known.get(namespace), &self.own, now)
    }

    /// Takes a namespace where nobody holds it, with a Lease that goes with `owner`. Gives who holds it when it is another operator.
    ///
    /// # Errors
    /// When the API server refuses or does not answer.
    pub async fn take(
        &self,
        client: &Client,
        namespace: &str,
        owner: Option<OwnerReference>,
    ) -> Result<Option<String>, WriteError> {
        match self.standing(namespace, Timestamp::now()) {
            Standing::Ours(_) => return Ok(None),
            Standing::Theirs(holder) => return Ok(Some(holder)),
            Standing::Free => {}
        }
        let conflict = match self.write(client, namespace, owner).await {
            Ok(()) => {
                tracing::info!(namespace, holder = self.own, "this operator looks after the namespace");
                return Ok(None);
            }
            Err(error) if matches!(error.fault, Fault::Conflict(_) | Fault::NotFound(_)) => error,
            Err(error) => return Err(error),
        };
        // Another one was faster, or another reconcile of ours.
        let api = Api::<Lease>::namespaced(client.clone(), namespace);
        match limited("get", "Lease", NAME, api.get_opt(NAME)).await? {
            Some(lease) => self.note(lease),
            None => self.forget(namespace),
        }
        match self.standing(namespace, Timestamp::now()) {
            Standing::Ours(_) => Ok(None),
            Standing::Theirs(holder) => Ok(Some(holder)),
            Standing::Free => Err(conflict),
        }
    }

    /// Whether a ModelDeployment has not been told yet that this one holds its namespace.
    pub fn is_news(&self, uid: &str, holder: &str) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.insert(uid.to_owned(), holder.to_owned()).as_deref() != Some(holder)
    }

    /// Forgets what a ModelDeployment was told.
    pub fn forget_told(&self, uid: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }

    /// Writes the Lease as ours: makes it, or replaces the one that is known, and no later one.
    async fn write(&self, client: &Client, namespace: &str, owner: Option<OwnerReference>) -> Result<(), WriteError> {
        let before = self.known.read().unwrap_or_else(PoisonError::into_inner).get(namespace).cloned();
        let lease = renewed(before.as_ref(), &self.own, namespace, owner, Timestamp::now());
        let api = Api::<Lease>::namespaced(client.clone(), namespace);
        let params = PostParams { field_manager: Some(labels::MANAGER.to_owned()), ..PostParams::default() };
        let written = match before {
            Some(_) => limited("update", "Lease", NAME, api.replace(NAME, &params, &lease)).await?,
            None => limited("create", "Lease", NAME, api.create(&params, &lease)).await?,
        };
        self.note(written);
        Ok(())
    }

    /// Takes in a Lease, unless a newer one is known.
    fn note(&self, lease: Lease) {
        let mut known = self.known.write().unwrap_or_else(PoisonError::into_inner);
        let namespace = lease.namespace().unwrap_or_default();
        let newer =
            known.get(&namespace).is_some_and(|it| version_of(it) > version_of(&lease) && it.uid() == lease.uid());
        if !newer {
            known.insert(namespace, lease);
        }
    }

    fn forget(&self, namespace: &str) {
        self.known.write().unwrap_or_else(PoisonError::into_inner).remove(namespace);
    }

    /// Follows a watch until it ends.
    async fn follow(&self, events: impl futures::Stream<Item = Event<Lease>>) {
        let (mut events, mut listed) = (pin!(events), BTreeSet::new());
        while let Some(event) = events.next().await {
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(lease) => {
                    listed.insert(lease.namespace().unwrap_or_default());
                    self.note(lease);
                }
                Event::InitDone => {
                    self.known.write().unwrap_or_else(PoisonError::into_inner).retain(|it, _| listed.contains(it));
                    self.synced.send_replace(true);
                }
                Event::Apply(lease) => self.note(lease),
                Event::Delete(lease) => self.forget(&lease.namespace().unwrap_or_default()),
            }
        }
    }

    /// Renews what is due, and gives the Lease to the gateway's ServiceAccount, with which it goes.
    async fn renew(&self, ctx: &Context, namespace: &str, since: Timestamp, now: Timestamp) {
        let account = ctx.views.known(Child::ServiceAccount, &Owner::gateway(namespace), GATEWAY).map(|it| it.uid);
        let owner = self
            .known
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(namespace)
            .and_then(|lease| lease.owner_references().first().map(|owner| owner.uid.clone()));
        let adopt = account.is_some() && account != owner;
        if !adopt && now.duration_since(since) < RENEW {
            return;
        }
        let owner = account.map(|uid| OwnerReference {
            api_version: ServiceAccount::api_version(&()).into_owned(),
            kind: ServiceAccount::kind(&()).into_owned(),
            name: GATEWAY.to_owned(),
            uid,
            ..OwnerReference::default()
        });
        match self.write(&ctx.client, namespace, owner).await {
            Ok(()) => {}
            // The watch brings what it is now.
            Err(error) => {
                tracing::warn!(namespace, %error, "the Lease of a namespace is not renewed: it is tried again")
            }
        }
    }
}

/// The Lease as this operator writes it. A holder that takes it from another counts one transition more.
fn renewed(before: Option<&Lease>, own: &str, namespace: &str, owner: Option<OwnerReference>, now: Timestamp) -> Lease {
    let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
    let ours = spec.holder_identity.as_deref() == Some(own);
    let mut metadata = before.map_or_else(ObjectMeta::default, |lease| lease.metadata.clone());
    metadata.name = Some(NAME.to_owned());
    metadata.namespace = Some(namespace.to_owned());
    metadata.labels.get_or_insert_default().insert(labels::MANAGED_BY.to_owned(), labels::MANAGER.to_owned());
    metadata.managed_fields = None;
    if let Some(owner) = owner {
        metadata.owner_references = Some(vec![owner]);
    }
    let transitions = spec.lease_transitions.unwrap_or_default();
    Lease {
        metadata,
        spec: Some(LeaseSpec {
            holder_identity: Some(own.to_owned()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: spec.acquire_time.filter(|_| ours).or(Some(MicroTime(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(if ours || before.is_none() { transitions } else { transitions.saturating_add(1) }),
            ..spec
        }),
    }
}

/// Watches the Leases, renews ours, and has ModelDeployments looked at whose namespace changes hands, until the operator ends.
pub async fn run(ctx: Arc<Context>, api: Api<Lease>, triggers: UnboundedSender<ObjectRef<Guarded>>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={NAME}"));
    let events = watcher::watcher(api, config).default_backoff();
    let follow = ctx.leases.follow(events.filter_map(|event| std::future::ready(logged(event, &ctx))));
    let keep = async {
        ctx.leases.wait_until_synced().await;
        let (mut ticks, mut others) = (interval(EVERY), BTreeMap::new());
        loop {
            ticks.tick().await;
            look(&ctx, &mut others, &triggers).await;
        }
    };
    ctx.stop.run_until_cancelled(async { tokio::join!(follow, keep) }).await;
}

async fn look(ctx: &Context, others: &mut BTreeMap<String, String>, triggers: &UnboundedSender<ObjectRef<Guarded>>) {
    let now = Timestamp::now();
    let mut theirs = BTreeMap::new();
    for namespace in ctx.views.models.namespaces() {
        match ctx.leases.standing(&namespace, now) {
            Standing::Ours(since) => ctx.leases.renew(ctx, &namespace, since, now).await,
            Standing::Theirs(holder) => drop(theirs.insert(namespace, holder)),
            Standing::Free => {}
        }
    }
    let both: BTreeSet<&String> = others.keys().chain(theirs.keys()).collect();
    for namespace in both.into_iter().filter(|it| others.get(*it) != theirs.get(*it)) {
        match theirs.get(namespace) {
            Some(holder) => {
                tracing::warn!(namespace, holder, "another operator looks after the namespace: it is left alone")
            }
            None => tracing::info!(namespace, "no other operator looks after the namespace any more"),
        }
        ctx.trigger_namespace(namespace, triggers);
    }
    ctx.metrics.namespaces_of_others.set(i64::try_from(theirs.len()).unwrap_or(i64::MAX));
    *others = theirs;
}

/// What a ModelDeployment is told whose namespace another operator than `own` holds.
pub fn note(namespace: &str, own: &str, holder: &str) -> PlannedEvent {
    PlannedEvent {
        warning: true,
        reason: "OtherOperator".to_owned(),
        action: "LeaveAlone".to_owned(),
        note: format!(
            "the operator {holder} looks after namespace {namespace}, as Lease {NAME} there says; this one, {own}, leaves it alone. Write {own} as holderIdentity into \
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
            "metadata": {"name": NAME, "namespace": "lab", "resourceVersion": "7"},
            "spec": {"holderIdentity": holder, "leaseDurationSeconds": 1800, "renewTime": renewed, "leaseTransitions": 2}
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_namespace_is_of_who_came_first_until_it_is_gone_for_half_an_hour() {
        let now: Timestamp = NOW.parse().unwrap();
        let (fresh, old) = ("2026-01-01T00:45:00.000000Z", "2026-01-01T00:29:00.000000Z");
        assert_eq!(standing(None, "a", now), Standing::Free);
        assert_eq!(standing(Some(&lease("", fresh)), "a", now), Standing::Free, "given back");
        assert_eq!(standing(Some(&lease("b", fresh)), "a", now), Standing::Theirs("b".into()));
        assert_eq!(standing(Some(&lease("b", old)), "a", now), Standing::Free);
        assert!(matches!(standing(Some(&lease("a", old)), "a", now), Standing::Ours(_)), "nobody took it meanwhile");
    }

    #[test]
    fn who_takes_it_from_another_counts_a_transition_and_keeps_what_others_wrote() {
        let now: Timestamp = NOW.parse().unwrap();
        let mut before = lease("b", NOW);
        before.metadata.annotations = Some([("theirs".to_owned(), "yes".to_owned())].into());
        let taken = renewed(Some(&before), "a", "lab", None, now);
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"), "only the one that was seen is replaced");
        assert_eq!(taken.metadata.annotations, before.metadata.annotations);
        let spec = taken.spec.clone().unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("a"), Some(3)));
        let later = now + RENEW;
        let again = renewed(Some(&taken), "a", "lab", None, later).spec.unwrap();
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
        leases.note(of("a", "12"));
        leases.note(of("b", "11"));
        let now: Timestamp = NOW.parse().unwrap();
        assert!(matches!(leases.standing("lab", now), Standing::Ours(_)));
        leases.note(of("b", "13"));
        assert_eq!(leases.standing("lab", now), Standing::Theirs("b".into()));
        leases.forget("lab");
        assert_eq!(leases.standing("lab", now), Standing::Free);
    }

    #[test]
    fn a_holder_is_told_once() {
        let leases = NamespaceLeases::new("a".into());
        assert!(leases.is_news("u", "b") && !leases.is_news("u", "b") && leases.is_news("u", "c"));
        leases.forget_told("u");
        assert!(leases.is_news("u", "c"));
    }
}
