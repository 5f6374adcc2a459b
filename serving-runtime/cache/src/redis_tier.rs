//! The cache tier in Redis: one shared connection, every wait bounded, every failure treated as a
//! miss.

use std::borrow::Cow;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, MutexGuard};
use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{Client, Cmd, FromRedisValue, IntoConnectionInfo as _, ProtocolVersion, RedisError};
use slipway_contracts::environment;
use slipway_runtime_common::keys::{CacheSealing, DeploymentKeys};
use slipway_runtime_common::seal::{EntrySealer, TAG_LEN};
use slipway_runtime_common::trace::trace_redis_call;
use tokio::sync::Semaphore;

use crate::breaker::{BreakerPermit, BreakerState, CircuitBreaker};
use crate::metrics::{CacheMetrics, RedisFailure};

/// Time limit of a trial, which runs outside of requests: connecting to a remote Redis takes longer
/// than a look-up may.
const TRIAL_TIMEOUT: Duration = Duration::from_secs(2);
/// Time limit of a write, which runs outside of requests as well.
const WRITE_TIMEOUT: Duration = Duration::from_millis(500);
/// Writes in progress at one time; further values are not stored.
const MAX_WRITES: usize = 64;

/// Redis did not answer in time, or returned an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RedisUnavailable;

/// A Redis that may be slow, gone, full or shared with others.
#[derive(Debug, Clone)]
pub struct RedisTier(Arc<RedisTierInner>);

struct RedisTierInner {
    manager: ConnectionManager,
    budget: Duration,
    breaker: Mutex<CircuitBreaker>,
    writes: Arc<Semaphore>,
    keys: Arc<DeploymentKeys>,
    metrics: CacheMetrics,
}

impl std::fmt::Debug for RedisTierInner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection manager contains a password.
        f.debug_struct("RedisTierInner")
            .field("budget", &self.budget)
            .field("breaker", &self.breaker)
            .finish_non_exhaustive()
    }
}

impl RedisTier {
    /// A Redis at `url`. The connection is made when it is first needed, and again when it is lost.
    /// Entries are sealed with `keys`. Needs a tokio runtime.
    ///
    /// # Errors
    /// What is wrong with the URL, without repeating it, because it may hold a password.
    pub fn new(
        url: &str,
        budget: Duration,
        keys: Arc<DeploymentKeys>,
        metrics: CacheMetrics,
    ) -> Result<Self, String> {
        let wrong = |e: RedisError| {
            format!(
                "--redis-url ({}) must be redis://, rediss:// or unix:///path: {}",
                environment::REDIS_URL,
                e.category()
            )
        };
        let info = url.into_connection_info().map_err(wrong)?;
        let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
        let client = Client::open(info.set_redis_settings(settings)).map_err(wrong)?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(TRIAL_TIMEOUT))
            .set_response_timeout(Some(TRIAL_TIMEOUT))
            // The circuit breaker decides when to retry.
            .set_number_of_retries(0);
        let manager = ConnectionManager::new_lazy_with_config(client, config).map_err(wrong)?;
        let breaker = Mutex::new(CircuitBreaker::new(Instant::now()));
        let writes = Arc::new(Semaphore::new(MAX_WRITES));
        metrics.set_breaker_state(2);
        Ok(Self(Arc::new(RedisTierInner { manager, budget, breaker, writes, keys, metrics })))
    }

    /// Connects early, so that the first request does not have to continue without Redis.
    pub async fn connect(&self) {
        if self.permit() == BreakerPermit::Trial {
            self.clone().run_trial().await;
        }
    }

    /// Whether a query would be sent now. Starts a trial when one is due.
    pub fn is_available(&self) -> bool {
        match self.permit() {
            BreakerPermit::Allow => true,
            BreakerPermit::Trial => {
                tokio::spawn(self.clone().run_trial());
                false
            }
            BreakerPermit::Deny => false,
        }
    }

    /// The value of `key`, if it arrives in time and has at most `max` bytes.
    pub async fn get(&self, key: &[u8], max: usize) -> Option<Vec<u8>> {
        self.try_get(key, max).await.ok().flatten()
    }

    /// Like [`Self::get`], but distinguishes a missing value from a missing answer.
    ///
    /// # Errors
    /// When there is no answer in time.
    pub async fn try_get(
        &self,
        key: &[u8],
        max: usize,
    ) -> Result<Option<Vec<u8>>, RedisUnavailable> {
        if !self.is_available() {
            return Err(RedisUnavailable);
        }
        let seal = self.current_seal()?;
        let (key, max) = match &seal {
            Some(seal) => (Cow::Owned(seal.sealed_name(key)), max.saturating_add(TAG_LEN)),
            None => (Cow::Borrowed(key), max),
        };
        // Reads a range, so that a huge foreign value is not read into memory: one byte over the
        // limit shows that the value is too large.
        let mut command = redis::cmd("GETRANGE");
        command.arg(&*key).arg(0).arg(max);
        let value: Vec<u8> = self
            .run_with_timeout(self.0.budget, "GETRANGE", self.query(command))
            .await
            .ok_or(RedisUnavailable)?;
        if value.len() > max {
            self.count_corrupt();
            return Ok(None);
        }
        // For a missing key Redis returns an empty string, which is never stored as a value.
        if value.is_empty() {
            return Ok(None);
        }
        let Some(seal) = seal else { return Ok(Some(value)) };
        let opened = seal.open(&key, value);
        if opened.is_none() {
            self.count_corrupt();
        }
        Ok(opened)
    }

    /// Stores a value in the background; under load it may be skipped.
    pub fn set_in_background(&self, key: Vec<u8>, value: Vec<u8>, ttl: Duration) {
        if !self.is_available() {
            return;
        }
        let Ok(place) = Arc::clone(&self.0.writes).try_acquire_owned() else {
            self.0.metrics.count_redis_error(RedisFailure::Skipped);
            return;
        };
        let this = self.clone();
        tokio::spawn(async move {
            // `write_sealed` counts failures.
            let _ = this.write_sealed(key, value, ttl).await;
            drop(place);
        });
    }

    /// Stores a value and waits for the confirmation.
    ///
    /// # Errors
    /// When the value was not stored.
    pub async fn try_set(
        &self,
        key: Vec<u8>,
        value: Vec<u8>,
        ttl: Duration,
    ) -> Result<(), RedisUnavailable> {
        if self.is_available() {
            self.write_sealed(key, value, ttl).await
        } else {
            Err(RedisUnavailable)
        }
    }

    async fn write_sealed(
        &self,
        mut key: Vec<u8>,
        mut value: Vec<u8>,
        ttl: Duration,
    ) -> Result<(), RedisUnavailable> {
        if let Some(seal) = self.current_seal()? {
            key = seal.sealed_name(&key);
            value = seal.seal(&key, &value);
        }
        let mut command = redis::cmd("SET");
        command
            .arg(key)
            .arg(value)
            .arg("PX")
            .arg(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1));
        self.run_with_timeout(WRITE_TIMEOUT, "SET", self.query(command))
            .await
            .ok_or(RedisUnavailable)
    }

    /// The sealer of entries; `None` where sealing is off.
    fn current_seal(&self) -> Result<Option<EntrySealer>, RedisUnavailable> {
        match self.0.keys.cache_sealing() {
            CacheSealing::Enabled(seal) => Ok(Some(seal)),
            CacheSealing::Off => Ok(None),
            CacheSealing::NoKey => {
                // Without a key, entries cannot be verified. The Secret may still appear.
                self.0.metrics.count_redis_error(RedisFailure::NoKey);
                Err(RedisUnavailable)
            }
        }
    }

    /// Counts a value with another format.
    pub fn count_corrupt(&self) {
        self.0.metrics.count_redis_error(RedisFailure::Corrupt);
    }

    async fn query<T: FromRedisValue>(&self, command: Cmd) -> Result<T, RedisError> {
        command.query_async(&mut self.0.manager.clone()).await
    }

    /// Waits for an answer within `limit`, and reports the outcome to the circuit breaker.
    async fn run_with_timeout<T>(
        &self,
        limit: Duration,
        operation: &'static str,
        work: impl Future<Output = Result<T, RedisError>>,
    ) -> Option<T> {
        let asked = trace_redis_call(operation, tokio::time::timeout(limit, work));
        let (failure, answer) = match asked.await {
            Ok(Ok(value)) => (None, Some(value)),
            Ok(Err(error)) => (Some(classify_error(&error)), None),
            Err(_) => (Some(RedisFailure::Timeout), None),
        };
        if let Some(failure) = failure {
            self.0.metrics.count_redis_error(failure);
        }
        // A Redis that returns an error is reachable; the cause of the error (full memory, another
        // type) does not disappear by pausing queries, so it must not open the breaker.
        let worked = failure.is_none_or(|failure| failure == RedisFailure::Refused);
        self.with_breaker(|breaker| breaker.record(Instant::now(), worked));
        answer
    }

    /// Checks whether Redis answers a PING.
    async fn run_trial(self) {
        let answer =
            tokio::time::timeout(TRIAL_TIMEOUT, self.query::<String>(redis::cmd("PING"))).await;
        let worked = matches!(&answer, Ok(Ok(_)));
        if let Ok(Err(error)) = &answer {
            tracing::warn!(
                reason = error.category(),
                "Redis does not answer; the caches do without"
            );
        }
        self.with_breaker(|breaker| breaker.record_trial(Instant::now(), worked));
    }

    fn permit(&self) -> BreakerPermit {
        self.with_breaker(|breaker| breaker.permit(Instant::now()))
    }

    fn with_breaker<T>(&self, act: impl FnOnce(&mut CircuitBreaker) -> T) -> T {
        let mut breaker: MutexGuard<'_, CircuitBreaker> = self.0.breaker.lock();
        let before = breaker.state();
        let result = act(&mut breaker);
        let after = breaker.state();
        drop(breaker);
        if before != after {
            self.0.metrics.set_breaker_state(match after {
                BreakerState::Closed => 0,
                BreakerState::HalfOpen(_) => 1,
                BreakerState::Open(_) => 2,
            });
        }
        result
    }
}

fn classify_error(error: &RedisError) -> RedisFailure {
    let answered = error.code().is_some_and(|code| ["WRONGTYPE", "OOM", "ERR"].contains(&code));
    if error.is_timeout() {
        RedisFailure::Timeout
    } else if answered {
        RedisFailure::Refused
    } else {
        RedisFailure::Connection
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrong_address_is_refused_without_repeating_it() {
        for url in ["http://:secret@x", "redis://:secret@", "secret"] {
            let error = RedisTier::new(
                url,
                Duration::from_millis(2),
                Arc::new(DeploymentKeys::new(None, "", "", "")),
                CacheMetrics::default(),
            )
            .unwrap_err();
            assert!(error.contains("redis://") && !error.contains("secret"), "{error}");
        }
    }
}
