//! The admin server: `/livez`, `/readyz`, `/metrics`.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use http::HeaderMap;
use slipway_chassis::admin::{
    self, AdminEndpoints, AdminFormat, AllowedMethods, ProbeResult, TEXT_PLAIN,
};
use slipway_chassis::metrics::OPENMETRICS;
use slipway_cluster_views::ClusterViews;
use slipway_listener::ShutdownMode;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::metrics::OperatorMetrics;
use crate::reconcile::context::RunningReconciles;

/// Every write has a time limit, so a reconcile that runs this long will never end.
const STUCK_AFTER: Duration = Duration::from_secs(300);

/// Time limit for pending answers at shutdown, so that a slow reader cannot prolong the life of a
/// process that has lost its lease.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Phase of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ProcessPhase {
    /// Waits for the lease and is ready to take over.
    Standby = 0,
    /// Leads.
    Leading = 1,
    /// Shuts down.
    Ending = 2,
}

/// The state that the probes report.
#[derive(Clone)]
pub struct OperatorHealth {
    pub views: Arc<ClusterViews>,
    /// Running reconciles.
    pub running: Arc<RunningReconciles>,
    pub metrics: Arc<OperatorMetrics>,
    phase: Arc<AtomicU8>,
}

impl OperatorHealth {
    /// Creates the state of a process in [`ProcessPhase::Standby`].
    pub fn new(
        views: Arc<ClusterViews>,
        running: Arc<RunningReconciles>,
        metrics: Arc<OperatorMetrics>,
    ) -> Self {
        Self { views, running, metrics, phase: Arc::default() }
    }

    pub fn set_phase(&self, phase: ProcessPhase) {
        self.phase.store(phase as u8, Ordering::Relaxed);
        self.metrics.leader.set(i64::from(phase == ProcessPhase::Leading));
    }
}

impl AdminEndpoints for OperatorHealth {
    const FORMAT: AdminFormat = AdminFormat {
        text_type: Some(TEXT_PLAIN),
        not_found: "",
        methods: AllowedMethods::ReadKnownPaths,
    };

    fn liveness(&self) -> ProbeResult {
        match self.running.oldest_age() {
            Some(age) if age > STUCK_AFTER => {
                Err(format!("a reconcile has run for {} s", age.as_secs()).into())
            }
            _ => Ok("ok".into()),
        }
    }

    fn readiness(&self) -> ProbeResult {
        match self.phase.load(Ordering::Relaxed) {
            0 => Ok("standing by".into()),
            1 if self.views.are_synced() => Ok("leading".into()),
            1 => Err("caches are not synced yet".into()),
            _ => Err("ending".into()),
        }
    }

    fn metrics(&self, _headers: &HeaderMap) -> Result<(&'static str, Vec<u8>), fmt::Error> {
        Ok((OPENMETRICS, self.metrics.encode_text().into_bytes()))
    }
}

/// Serves until `stop`, and then at most as long as [`DRAIN_TIMEOUT`].
pub async fn serve_admin(listener: TcpListener, health: OperatorHealth, stop: CancellationToken) {
    let serving =
        admin::serve_admin(listener, ShutdownMode::Drain, Arc::new(health), stop.cancelled());
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN_TIMEOUT).await;
    };
    tokio::select! {
        () = serving => {}
        () = drained => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_follows_the_phase() {
        let health = OperatorHealth::new(Arc::default(), Arc::default(), Arc::default());
        assert!(health.readiness().is_ok(), "standing by");
        health.set_phase(ProcessPhase::Leading);
        assert!(health.readiness().is_err(), "no caches yet");
        health.set_phase(ProcessPhase::Ending);
        assert!(health.readiness().is_err());
        assert!(health.liveness().is_ok());
    }
}
