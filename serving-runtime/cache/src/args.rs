//! Command-line options of the caches.

use clap::Args;
use secrecy::SecretString;
use slipway_contracts::environment;

/// Options of the caches; all of them are off by default.
#[derive(Debug, Clone, Args)]
pub struct CacheArgs {
    /// Answer repeated inputs from memory and, with `--redis-url`, from Redis.
    #[arg(long, env = environment::RESULT_CACHE)]
    pub result_cache: bool,
    /// Bytes of this process's own tier of the result cache.
    #[arg(long, env = environment::RESULT_CACHE_BYTES, default_value_t = 64 << 20)]
    pub result_cache_bytes: u64,
    /// Age at which a kept answer is not used any more, in seconds. Actual ages are up to a tenth
    /// less, so that not all end at once.
    #[arg(long, env = environment::RESULT_CACHE_TTL_SECONDS, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=30 * 86_400))]
    pub result_cache_ttl_seconds: u64,
    /// Largest answer that is kept, in bytes of its tensors.
    #[arg(long, env = environment::RESULT_CACHE_MAX_ENTRY_BYTES, default_value_t = 1 << 20, value_parser = clap::value_parser!(u64).range(1..=64 << 20))]
    pub result_cache_max_entry_bytes: u64,
    /// Look up always, also when it costs more than it saves.
    #[arg(long, env = environment::CACHE_NO_BYPASS)]
    pub no_cache_bypass: bool,
    /// How many of the most asked inputs are remembered and told to new pods (on the admin port),
    /// and how many of those that another pod tells are answered before this one is ready. 0:
    /// none.
    #[arg(long, env = environment::CACHE_HOT_KEYS, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1024))]
    pub cache_hot_keys: u32,
    /// Base address of the admin port of the pod that lists its most requested inputs. Default: a
    /// pod of the revision that serves now, found through the gateway.
    #[arg(long, env = "SLIPWAY_CACHE_HOT_FROM", default_value = "")]
    pub cache_hot_from: String,
    /// Keep feature rows, and fill requests that name an entity with them.
    #[arg(long, env = environment::FEATURE_CACHE)]
    pub feature_cache: bool,
    /// Bytes of feature rows in this process.
    #[arg(long, env = environment::FEATURE_CACHE_BYTES, default_value_t = 64 << 20)]
    pub feature_cache_bytes: u64,
    /// Age at which a feature row is not used any more, in seconds.
    #[arg(long, env = environment::FEATURE_TTL_SECONDS, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=365 * 86_400))]
    pub feature_ttl_seconds: u64,
    /// Where to ask for a row that nobody has written: `http(s)://host/path` with `{entity}` in
    /// the path or query. Empty: nowhere.
    #[arg(long, env = environment::FEATURE_SOURCE_URL, default_value = "")]
    pub feature_source_url: String,
    /// Longest time for the source's answer, in milliseconds.
    #[arg(long, env = environment::FEATURE_SOURCE_TIMEOUT_MS, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=30_000))]
    pub feature_source_timeout_ms: u64,
    /// Redis behind the caches: `redis://[user:password@]host[:port][/db]`, `rediss://...` for
    /// TLS, or `unix:///path`. Empty: none.
    #[arg(long, env = environment::REDIS_URL, default_value = "", hide_env_values = true)]
    pub redis_url: SecretString,
    /// Longest time that one request waits for Redis, in milliseconds, before it goes on without.
    #[arg(long, env = environment::REDIS_BUDGET_MS, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    pub redis_budget_ms: u64,
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use secrecy::ExposeSecret as _;

    use super::*;

    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        cache: CacheArgs,
    }

    #[test]
    fn a_password_is_never_printed() {
        let options = Options::parse_from(["server", "--redis-url=redis://:hidden@host"]);
        assert_eq!(options.cache.redis_url.expose_secret(), "redis://:hidden@host");
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
