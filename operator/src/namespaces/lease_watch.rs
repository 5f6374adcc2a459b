//! Watches the Leases of namespaces and renews those of this operator.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::{WatchStreamExt, watcher};
use tokio::time::interval;

use crate::namespaces::lease_object::{LEASE_NAME, NamespaceHolder};
use crate::namespaces::leases::NamespaceLeases;
use crate::watch::context::{WatchContext, ok_or_log};

/// Interval of the check for Leases to renew and expired Leases.
const POLL_INTERVAL: Duration = Duration::from_secs(2);

/// Watches the Leases, renews those of this operator, and triggers the ModelDeployments of
/// namespaces whose holder changes, until the operator stops.
pub async fn watch_leases(ctx: WatchContext, leases: Arc<NamespaceLeases>) {
    let config = watcher::Config::default().fields(&format!("metadata.name={LEASE_NAME}"));
    let events = watcher::watcher(ctx.api::<Lease>(), config).default_backoff();
    let follow = leases.follow_events(
        events.filter_map(|event| std::future::ready(ok_or_log(event, &ctx.metrics))),
    );
    let keep = async {
        leases.wait_until_synced().await;
        let (mut ticks, mut others) = (interval(POLL_INTERVAL), BTreeMap::new());
        loop {
            ticks.tick().await;
            check_leases(&ctx, &leases, &mut others).await;
        }
    };
    ctx.stop.run_until_cancelled(async { tokio::join!(follow, keep) }).await;
}

async fn check_leases(
    ctx: &WatchContext,
    leases: &NamespaceLeases,
    others: &mut BTreeMap<String, String>,
) {
    let now = Timestamp::now();
    let mut theirs = BTreeMap::new();
    for namespace in ctx.views.models.namespaces() {
        match leases.holder(&namespace, now) {
            NamespaceHolder::ThisOperator(since) => {
                leases.renew_if_due(ctx, &namespace, since, now).await
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
        ctx.trigger_namespace(namespace);
    }
    ctx.metrics.namespaces_of_others.set(i64::try_from(theirs.len()).unwrap_or(i64::MAX));
    *others = theirs;
}
