//! The context that all requests share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use slipway_gateway_feedback::FeedbackState;
use slipway_gateway_feedback::ledger::{FeedbackLedger, FeedbackLimits};
use slipway_gateway_feedback::peers::GatewayPeers;
use slipway_gateway_upstream::pool::PodConnector;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::keys::KeyStore;
use crate::metrics::GatewayMetrics;
use crate::settings::ProcessSettings;
use crate::shares::{CapacityPools, ModelShares};
use crate::table::ModelRouter;

/// The gateway: settings, route table, limits, lifecycle state.
#[derive(Debug)]
pub struct GatewayContext {
    /// Limits and timings.
    pub settings: ProcessSettings,
    pub metrics: Arc<GatewayMetrics>,
    pub router: ModelRouter,
    /// The keys of the namespace.
    pub keys: Arc<KeyStore>,
    pub feedback: FeedbackState,
    /// Resources taken by requests whose ModelDeployment is not known yet.
    pub unrouted_shares: ModelShares,
    synced: AtomicBool,
    draining: AtomicBool,
}

impl GatewayContext {
    /// Creates a gateway without routes.
    pub fn new(settings: ProcessSettings) -> Arc<Self> {
        let metrics = GatewayMetrics::new();
        metrics.feedback.set_ttl(settings.feedback_ttl);
        let keys = KeyStore::new(settings.keys_directory.clone(), Arc::clone(&metrics));
        keys.reload();
        let remembered = settings.max_remembered_feedback;
        let book = FeedbackLedger::new(FeedbackLimits {
            ttl_seconds: settings.feedback_ttl.as_secs(),
            max_remembered: remembered,
        });
        let feedback = FeedbackState { ledger: book, peers: GatewayPeers::new(&settings.pod_name) };
        let connector = PodConnector {
            connect_timeout: settings.connect_timeout,
            idle_timeout: settings.pool_idle,
            tasks: TaskTracker::new(),
        };
        let pools = CapacityPools::new(settings.max_in_flight, settings.max_buffered_total);
        Arc::new(Self {
            unrouted_shares: ModelShares::new(&pools),
            router: ModelRouter::new(
                settings.clone(),
                pools,
                Arc::clone(&metrics),
                connector,
                Arc::clone(&keys),
            ),
            metrics,
            keys,
            feedback,
            synced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            settings,
        })
    }

    /// Records that both watches have delivered a complete list. Returns whether this is the first
    /// call.
    pub fn set_synced(&self) -> bool {
        !self.synced.swap(true, Ordering::AcqRel)
    }

    /// Removes state that has been unused for long.
    pub fn sweep(&self, now: Instant) {
        self.router.sweep(now);
        let serves = |model: &str, revision: &str| {
            self.router.table().models.get(model).is_some_and(|model| model.arm(revision).is_some())
        };
        self.metrics.feedback.sweep(now, self.settings.feedback_ttl, serves);
    }

    /// Starts draining: clients should disconnect.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether clients should disconnect.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether the gateway accepts new clients.
    pub fn is_ready(&self) -> bool {
        self.synced.load(Ordering::Acquire) && !self.is_draining()
    }
}
