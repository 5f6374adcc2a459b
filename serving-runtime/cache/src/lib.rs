//! Caches: answers by what they depend on, and feature rows by entity, kept in this process's
//! memory and in Redis.
//!
//! What holds for all of them:
//! * **Never an answer of another model**: the digest of the model's file is part of every key, and
//!   stored values prove whose they are.
//! * **Never an answer of others**: with the keys of the namespace, what is in Redis proves that
//!   pods of the ModelDeployment wrote it ([`seal`](slipway_runtime_common::seal)).
//! * **Fail open**: Redis may be slow, gone, full or spoilt; requests then do without it. One waits
//!   for at most the budget, and after a few failures nobody asks any more ([`breaker`]) until it
//!   answers again.
//! * **Errors are never kept**, nor are outputs with a NaN or an infinity.
//! * **One flight**: of several requests of one key at one time, one does the work
//!   ([`single_flight`]).
//! * **Bypass**: where looking up costs more than it saves, requests go past the cache
//!   ([`bypass_policy`]).

pub mod args;
pub mod breaker;
pub mod bypass_policy;
pub mod features;
pub mod hot_keys;
pub mod key;
pub mod local;
pub mod metrics;
pub mod redis_tier;
pub mod result;
pub mod single_flight;
pub mod source;
pub mod value;

use std::sync::Arc;

use secrecy::ExposeSecret as _;
use slipway_runtime_common::keys::DeploymentKeys;

pub use self::args::CacheArgs;
use self::features::FeatureRowCache;
pub use self::metrics::{CacheMetrics, CacheOutcome};
use self::redis_tier::RedisTier;
use self::result::InferResultCache;

/// The header and the parameter that tell how an answer was come by: `hit`, `miss` or `bypass`.
pub const CACHE_HEADER: &str = slipway_contracts::headers::CACHE;

/// The caches of a process.
#[derive(Debug, Default)]
pub struct RuntimeCaches {
    redis: Option<RedisTier>,
    /// Answers; `None` when they are not kept.
    pub results: Option<InferResultCache>,
    /// Feature rows; `None` when they are not kept.
    pub features: Option<FeatureRowCache>,
}

impl RuntimeCaches {
    /// The caches of the ModelDeployment `namespace` (`<namespace>/<name>`), as the options want
    /// them; what they keep in Redis is sealed with `keys`. Needs a tokio runtime.
    ///
    /// # Errors
    /// When an address is none.
    pub fn new(
        args: &CacheArgs,
        namespace: &str,
        keys: &Arc<DeploymentKeys>,
        metrics: &CacheMetrics,
    ) -> Result<Self, String> {
        let url = args.redis_url.expose_secret();
        let wanted = (args.result_cache || args.feature_cache) && !url.is_empty();
        let budget = std::time::Duration::from_millis(args.redis_budget_ms);
        let redis = wanted
            .then(|| RedisTier::new(url, budget, Arc::clone(keys), metrics.clone()))
            .transpose()?;
        let results = InferResultCache::new(args, redis.clone(), metrics);
        let features = FeatureRowCache::new(args, namespace, redis.clone(), metrics)?;
        Ok(Self { redis, results, features })
    }

    /// Connects to Redis, so that the first requests need not do without. Waits for a second or two
    /// at most.
    pub async fn connect(&self) {
        if let Some(redis) = &self.redis {
            redis.connect().await;
        }
    }
}
