//! A simulator that drives `slipway-core` through whole rollouts, with faults.
//!
//! One seed defines one world: a ModelDeployment with its ReplicaSets and pods, two gateways that
//! watch its status, a Prometheus, traffic, an autoscaler, users who change the spec, and one or
//! two operators with stale views and lost writes that crash between any two writes. The seed
//! determines everything, so a failure is reproduced by its number: `run_seed(seed)` repeats it,
//! with a transcript.
//!
//! Unlike the plan, the simulator has access to the actual behaviour of the versions. It checks the
//! invariants of the plan at every plan and those of the world at every tick. At the end, after the
//! faults have stopped, it checks that good versions were promoted, bad ones were not, and
//! everything came to rest.

mod behavior;
mod chaos;
mod clock;
mod cluster;
mod fault_settings;
mod gateway;
mod invariants;
mod metrics;
mod operator_process;
mod pods;
mod rng;
pub mod script;
mod store;
mod world;

pub use behavior::{ModelBehavior, ModelQuality};
pub use fault_settings::FaultSettings;
pub use rng::SeededRng;
pub use world::SimulatedWorld;

/// The result of one seed.
#[derive(Clone, Debug)]
pub struct SeedOutcome {
    /// Violated invariants; empty if there are none.
    pub violations: Vec<String>,
    /// The events of the run, one line each.
    pub transcript: Vec<String>,
    /// Rollouts of versions that are much worse than stable, and how many of them were promoted
    /// without a user's order.
    pub bad: (u32, u32),
    /// Rollouts of versions that are as good as stable, and how many of them a gate rolled back.
    pub good: (u32, u32),
    /// Number of plans.
    pub plans: u64,
    /// Writes that reached the API server.
    pub writes: u64,
}

/// Runs one seed to its end.
pub fn run_seed(seed: u64) -> SeedOutcome {
    chaos::play_seed(seed)
}
