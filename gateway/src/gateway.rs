//! What all requests share.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::{
    config::Settings,
    feedback::{Book, Feedback, Limits, Peers},
    keys::Keys,
    metrics::Metrics,
    model::{Pools, Shares},
    table::Router,
    upstream::Connector,
};

/// The gateway: settings, table, bounds, state of life.
#[derive(Debug)]
pub struct Gateway {
    /// Bounds and timings.
    pub settings: Settings,
    /// Counts.
    pub metrics: Arc<Metrics>,
    /// The route table.
    pub router: Router,
    /// The keys of the namespace.
    pub keys: Arc<Keys>,
    /// What feedback there was.
    pub feedback: Feedback,
    /// What requests have taken of which nobody knows yet for whom they are.
    pub unrouted: Shares,
    synced: AtomicBool,
    draining: AtomicBool,
}

impl Gateway {
    /// A gateway without any route.
    pub fn new(settings: Settings) -> Arc<Self> {
        let metrics = Metrics::new();
        metrics.outcomes.set_ttl(settings.feedback_ttl);
        let keys = Keys::new(settings.keys_directory.clone(), Arc::clone(&metrics));
        keys.reload();
        let remembered = settings.max_remembered_feedback;
        let book = Book::new(Limits { ttl_seconds: settings.feedback_ttl.as_secs(), remembered });
        let feedback = Feedback { book, peers: Peers::new(&settings.pod_name) };
        let connector =
            Connector { timeout: settings.connect_timeout, idle: settings.pool_idle, tasks: TaskTracker::new() };
        let pools = Pools::new(settings.max_in_flight, settings.max_buffered_total);
        Arc::new(Self {
            unrouted: Shares::new(&pools),
            router: Router::new(settings.clone(), pools, Arc::clone(&metrics), connector, Arc::clone(&keys)),
            metrics,
            keys,
            feedback,
            synced: AtomicBool::new(false),
            draining: AtomicBool::new(false),
            settings,
        })
    }

    /// Both watches have delivered everything once. Returns whether this is news.
    pub fn set_synced(&self) -> bool {
        !self.synced.swap(true, Ordering::AcqRel)
    }

    /// Forgets what is long gone.
    pub fn sweep(&self, now: Instant) {
        self.router.sweep(now);
        let serves = |model: &str, revision: &str| {
            self.router.table().models.get(model).is_some_and(|model| model.arm(revision).is_some())
        };
        self.metrics.outcomes.sweep(now, self.settings.feedback_ttl, serves);
    }

    /// From now on the gateway wants to lose its clients.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Whether the gateway wants to lose its clients.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Whether new clients may come.
    pub fn is_ready(&self) -> bool {
        self.synced.load(Ordering::Acquire) && !self.is_draining()
    }
}
