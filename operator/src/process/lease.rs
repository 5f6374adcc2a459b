//! Leader election. A process that loses the lease ends, because another one may lead already.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use kube::{Api, Client};
use kube_lease_manager::{LeaseManager, LeaseManagerBuilder};
use slipway_chassis::backoff::Jitter;
use tokio_util::sync::CancellationToken;

use crate::process::error::OperatorError;

/// How long a lease is valid without renewal.
const DURATION_SECONDS: u64 = 15;
/// How long before its expiry it is renewed.
const GRACE_SECONDS: u64 = 7;
/// When renewals have failed for this long, the lease counts as lost. Less than the grace period,
/// so that this process stops before another one starts to lead.
const LOST_AFTER: Duration = Duration::from_secs(3);
/// Polling interval of a process that waits: a released lease is acquired within two seconds.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Time limit of one attempt to acquire or renew the lease. The read timeout of the lease's client
/// is shorter.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(5);
/// Read timeout for the client of the lease: a renewal that does not answer counts as failed.
pub const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// Location of the lease, and the identity of the process that acquires it.
#[derive(Clone, Debug)]
pub struct LeaseIdentity {
    pub namespace: String,
    pub name: String,
    /// Identity of the process: different for every process.
    pub identity: String,
}

/// The acquired lease.
pub struct LeaderLease {
    manager: LeaseManager,
}

/// Waits until this process holds the lease; returns `None` when `stop` is cancelled first.
pub async fn acquire_lease(
    client: &Client,
    candidacy: &LeaseIdentity,
    stop: &CancellationToken,
) -> Option<LeaderLease> {
    let mut is_logged = false;
    loop {
        match try_acquire(client, candidacy).await {
            Ok(Some(held)) => return Some(held),
            Ok(None) if !is_logged => {
                is_logged = true;
                tracing::info!(lease = candidacy.name, "another operator leads; standing by");
            }
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(lease = candidacy.name, %error, "cannot look at the lease")
            }
        }
        let pause = Jitter::PlusMinus(0.2).apply_random(RETRY_INTERVAL);
        stop.run_until_cancelled(tokio::time::sleep(pause)).await?;
    }
}

/// Makes one attempt. The manager alone would sleep until the lease expires, even if the holder has
/// released it long before.
async fn try_acquire(
    client: &Client,
    candidacy: &LeaseIdentity,
) -> Result<Option<LeaderLease>, String> {
    let api = Api::<LeaseObject>::namespaced(client.clone(), &candidacy.namespace);
    let there = api.get_opt(&candidacy.name).await.map_err(|e| e.to_string())?;
    if there.is_some_and(|lease| is_held(&lease, Timestamp::now())) {
        return Ok(None);
    }
    let manager = LeaseManagerBuilder::new(client.clone(), &candidacy.name)
        .with_namespace(&candidacy.namespace)
        .with_identity(&candidacy.identity)
        .with_duration(DURATION_SECONDS)
        .with_grace(GRACE_SECONDS)
        .with_field_manager(format!("slipway-lease-{}", candidacy.identity))
        .build()
        .await
        .map_err(|e| e.to_string())?;
    match tokio::time::timeout(ATTEMPT_TIMEOUT, manager.changed()).await {
        Ok(Ok(true)) => Ok(Some(LeaderLease { manager })),
        Ok(Err(error)) => Err(error.to_string()),
        // Another process acquired the lease first.
        Ok(Ok(false)) | Err(_) => Ok(None),
    }
}

/// Whether a process holds the lease. No other process can hold it with our identity: identities
/// differ between processes.
fn is_held(lease: &LeaseObject, now: Timestamp) -> bool {
    let Some(spec) = &lease.spec else { return false };
    let holder = spec.holder_identity.as_deref().unwrap_or_default();
    let length = SignedDuration::from_secs(spec.lease_duration_seconds.unwrap_or(0).into());
    let fresh =
        spec.renew_time.as_ref().is_some_and(|renewed| now.duration_since(renewed.0) < length);
    !holder.is_empty() && fresh
}

impl LeaderLease {
    /// Renews the lease until `stop`, then releases it so that a successor does not have to wait.
    ///
    /// # Errors
    /// When the lease is lost.
    pub async fn renew_until(self, stop: &CancellationToken) -> Result<(), OperatorError> {
        match stop.run_until_cancelled(self.renew_until_lost()).await {
            Some(why) => Err(OperatorError::LeaseLost(why)),
            None => {
                self.release().await;
                Ok(())
            }
        }
    }

    async fn release(&self) {
        match tokio::time::timeout(ATTEMPT_TIMEOUT, self.manager.release()).await {
            Ok(Ok(())) => tracing::info!("gave the lease back"),
            Ok(Err(error)) => tracing::warn!(%error, "lease not given back; it runs out by itself"),
            Err(_) => tracing::warn!("lease not given back in time; it runs out by itself"),
        }
    }

    /// Renews until the lease is lost, and returns the reason. The manager reports only changes and
    /// errors, so silence after an error means success.
    async fn renew_until_lost(&self) -> String {
        let mut failing: Option<tokio::time::Instant> = None;
        loop {
            let change = async {
                match failing {
                    Some(_) => {
                        tokio::time::timeout(ATTEMPT_TIMEOUT, self.manager.changed()).await.ok()
                    }
                    None => Some(self.manager.changed().await),
                }
            };
            match change.await {
                None => failing = None,
                Some(Ok(true)) => failing = None,
                Some(Ok(false)) => return "another process holds it".into(),
                Some(Err(error)) => {
                    let since = *failing.get_or_insert_with(tokio::time::Instant::now);
                    tracing::warn!(%error, "lease not renewed");
                    if since.elapsed() >= LOST_AFTER {
                        return format!("not renewed for too long: {error}");
                    }
                    tokio::time::sleep(Duration::from_millis(300)).await;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lease(spec: serde_json::Value) -> LeaseObject {
        serde_json::from_value(json!({"metadata": {"name": "l"}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_lease_is_free_when_given_back_or_run_out() {
        let now: Timestamp = "2026-01-01T00:00:20Z".parse().unwrap();
        let renewed =
            |at: &str| json!({"holderIdentity": "x", "leaseDurationSeconds": 15, "renewTime": at});
        assert!(is_held(&lease(renewed("2026-01-01T00:00:10.000000Z")), now));
        assert!(!is_held(&lease(renewed("2026-01-01T00:00:05.000000Z")), now));
        assert!(!is_held(&lease(json!({})), now));
        assert!(!is_held(&lease(json!({"holderIdentity": ""})), now));
    }
}
