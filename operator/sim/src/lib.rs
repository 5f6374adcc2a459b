//! A simulator that drives `slipway-core` through whole rollouts, with faults.
//!
//! One seed is one world: a ModelDeployment with its ReplicaSets and pods, two gateways that watch
//! its status, a Prometheus, traffic, an autoscaler, people who change their minds, and one or two
//! operators whose views are stale, whose writes get lost and who die between any two of them.
//! Nothing is random but by the seed, so a failure is a number: `run(seed)` shows it again, with a
//! transcript of what happened.
//!
//! The simulator knows what the plan does not: which versions are bad. It checks the invariants of
//! the plan at every plan, those of the world at every tick, and at the end, when faults have
//! stopped, that good versions got through, bad ones did not, and everything came to rest.

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

/// What came of one seed.
#[derive(Clone, Debug)]
pub struct SeedOutcome {
    /// What went wrong; empty when nothing did.
    pub violations: Vec<String>,
    /// What happened, a line each.
    pub transcript: Vec<String>,
    /// Rollouts of versions that are worse than stable by far, and how many of them were promoted
    /// without a person's order.
    pub bad: (u32, u32),
    /// Rollouts of versions that are as good as stable, and how many of them a gate took back.
    pub good: (u32, u32),
    /// Plans that were made.
    pub plans: u64,
    /// Writes that reached the API server.
    pub writes: u64,
}

/// Runs one seed to its end.
pub fn run_seed(seed: u64) -> SeedOutcome {
    chaos::play_seed(seed)
}
