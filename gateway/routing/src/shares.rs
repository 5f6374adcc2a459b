//! What all ModelDeployments share, and the part of each.

use std::net::IpAddr;
use std::sync::Arc;

use slipway_gateway_policy::share::{CapacityPool, PoolShare, RequestPermit};
use slipway_gateway_policy::uploads::PendingUploads;

/// What all ModelDeployments share.
#[derive(Clone, Debug)]
pub struct CapacityPools {
    permits: Arc<CapacityPool>,
    memory: Arc<CapacityPool>,
}

impl CapacityPools {
    /// So many requests at one time, and so many bytes of bodies.
    pub fn new(places: usize, memory: usize) -> Self {
        Self { permits: CapacityPool::new(places), memory: CapacityPool::new(memory) }
    }
}

/// One ModelDeployment's part of the [`CapacityPools`].
#[derive(Clone, Debug)]
pub struct ModelShares {
    /// Of the requests that are there at one time.
    permits: Arc<PoolShare>,
    /// Of the memory for bodies, in bytes.
    pub memory: Arc<PoolShare>,
    /// Requests whose bodies are on their way.
    pub uploads: Arc<PendingUploads>,
}

impl ModelShares {
    /// Nothing yet.
    pub fn new(pools: &CapacityPools) -> Self {
        Self {
            permits: PoolShare::new(&pools.permits),
            memory: PoolShare::new(&pools.memory),
            uploads: Arc::default(),
        }
    }

    /// Requests that are there now.
    pub fn in_flight(&self) -> usize {
        self.permits.used()
    }

    /// A place for one more request, if there is one.
    pub fn try_acquire(&self) -> Option<Arc<RequestPermit>> {
        RequestPermit::acquire(&self.permits)
    }

    /// A place for one more request of a client, if need be that of a body that another client
    /// keeps waiting.
    pub fn admit(&self, peer: IpAddr) -> Option<Arc<RequestPermit>> {
        self.try_acquire().or_else(|| self.uploads.reclaim_permit(peer))
    }
}
