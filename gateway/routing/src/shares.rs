//! Resources that all ModelDeployments share, and the part of each.

use std::net::IpAddr;
use std::sync::Arc;

use slipway_gateway_policy::share::{CapacityPool, PoolShare, RequestPermit};
use slipway_gateway_policy::uploads::PendingUploads;

/// Resources that all ModelDeployments share.
#[derive(Clone, Debug)]
pub struct CapacityPools {
    permits: Arc<CapacityPool>,
    memory: Arc<CapacityPool>,
}

impl CapacityPools {
    /// Pools for this number of concurrent requests and this number of bytes of bodies.
    pub fn new(places: usize, memory: usize) -> Self {
        Self { permits: CapacityPool::new(places), memory: CapacityPool::new(memory) }
    }
}

/// One ModelDeployment's part of the [`CapacityPools`].
#[derive(Clone, Debug)]
pub struct ModelShares {
    /// Its part of the concurrent requests.
    permits: Arc<PoolShare>,
    /// Its part of the memory for bodies, in bytes.
    pub memory: Arc<PoolShare>,
    /// Requests whose bodies are still arriving.
    pub uploads: Arc<PendingUploads>,
}

impl ModelShares {
    /// Creates shares of which nothing is taken.
    pub fn new(pools: &CapacityPools) -> Self {
        Self {
            permits: PoolShare::new(&pools.permits),
            memory: PoolShare::new(&pools.memory),
            uploads: Arc::default(),
        }
    }

    /// Number of requests in flight.
    pub fn in_flight(&self) -> usize {
        self.permits.used()
    }

    /// A permit for one more request, if one is free.
    pub fn try_acquire(&self) -> Option<Arc<RequestPermit>> {
        RequestPermit::acquire(&self.permits)
    }

    /// A permit for one more request of a client; if necessary that of a body that is still
    /// arriving from another client.
    pub fn admit(&self, peer: IpAddr) -> Option<Arc<RequestPermit>> {
        self.try_acquire().or_else(|| self.uploads.reclaim_permit(peer))
    }
}
