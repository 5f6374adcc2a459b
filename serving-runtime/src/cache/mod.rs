//! Caches: answers by what they depend on, kept in this process's memory and in Redis.
//!
//! What holds for all of them:
//! * **Never an answer of another model**: the digest of the model's file is part of every key, and stored values prove whose they are.
//! * **Fail open**: Redis may be slow, gone, full or spoilt; requests then do without it. One waits for at most the budget, and after a
//!   few failures nobody asks any more ([`breaker`]) until it answers again.
//! * **Errors are never kept**, nor are outputs with a NaN or an infinity.
//! * **One flight**: of several requests of one key at one time, one does the work ([`flight`]).
//! * **Bypass**: where looking up costs more than it saves, requests go past the cache ([`worth`]).

pub mod args;
pub mod breaker;
pub mod flight;
pub mod key;
pub mod local;
pub mod metrics;
pub mod redis_tier;
pub mod result;
pub mod value;
pub mod worth;

pub use self::args::CacheArgs;
pub use self::metrics::{CacheMetrics, Outcome};
use self::redis_tier::Redis;
use self::result::ResultCache;

/// The header and the parameter that tell how an answer was come by: `hit`, `miss` or `bypass`.
pub const HEADER: &str = "x-slipway-cache";

/// The caches of a process.
#[derive(Debug, Default)]
pub struct Caches {
    redis: Option<Redis>,
    /// Answers; `None` when they are not kept.
    pub results: Option<ResultCache>,
}

impl Caches {
    /// The caches as the options want them. Needs a tokio runtime.
    ///
    /// # Errors
    /// When the address of Redis is none.
    pub fn new(args: &CacheArgs, metrics: &CacheMetrics) -> Result<Self, String> {
        let url = args.redis_url.as_str();
        let wanted = args.result_cache && !url.is_empty();
        let budget = std::time::Duration::from_millis(args.redis_budget_ms);
        let redis = wanted.then(|| Redis::new(url, budget, metrics.clone())).transpose()?;
        let results = ResultCache::new(args, redis.clone(), metrics);
        Ok(Self { redis, results })
    }

    /// Connects to Redis, so that the first requests need not do without. Waits for a second or two at most.
    pub async fn connect(&self) {
        if let Some(redis) = &self.redis {
            redis.connect().await;
        }
    }
}
