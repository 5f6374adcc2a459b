//! The feature cache: rows of inputs by entity, written by an ingest endpoint and, on a miss,
//! fetched from a configured source.
//!
//! A row is the unparsed JSON `{"<input>": <row of it>, ...}`. It is inserted into the request as
//! it is and parsed by the protocol, so that rows and requests follow the same rules.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};
use slipway_runtime_common::clock::now_millis;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::tensor::{Tensor, TensorData};

use crate::args::CacheArgs;
use crate::key::CacheKey;
use crate::local::LocalTier;
use crate::metrics::{CacheMetrics, CacheOutcome};
use crate::redis_tier::RedisTier;
use crate::single_flight::{FlightRole, SingleFlight};
use crate::source::{FeatureRowSource, MAX_ROW};
use crate::value;

const CACHE_NAME: &str = "feature";
const KEY_PREFIX: &[u8] = b"slipway:feature:1:";
const DOMAIN: &[u8] = b"slipway feature v2\0";
/// Largest length of an entity's name, in bytes.
pub const MAX_ENTITY: usize = 256;
/// With a Redis, which other pods write to as well, a local row is used this long before Redis is
/// queried again.
const LOCAL_TTL: Duration = Duration::from_secs(5);

/// A row: the value of each input.
pub type FeatureRow = BTreeMap<String, Box<RawValue>>;

/// The result that the leader of a flight shares with its followers.
type SharedRowResult = Result<Option<Arc<FeatureRow>>, PredictError>;

/// The feature cache of a process.
#[derive(Debug)]
pub struct FeatureRowCache {
    local: LocalTier<CacheKey, Arc<FeatureRow>>,
    redis: Option<RedisTier>,
    source: Option<FeatureRowSource>,
    flights: SingleFlight<CacheKey, SharedRowResult>,
    namespace: String,
    ttl: Duration,
    metrics: CacheMetrics,
}

impl FeatureRowCache {
    /// Creates the cache when it is enabled. Rows of different `namespace`s (ModelDeployments) are
    /// separate.
    ///
    /// # Errors
    /// When the address of the source is invalid.
    pub fn new(
        args: &CacheArgs,
        namespace: &str,
        redis: Option<RedisTier>,
        metrics: &CacheMetrics,
    ) -> Result<Option<Self>, String> {
        if !args.feature_cache {
            return Ok(None);
        }
        metrics.init_series(CACHE_NAME);
        let timeout = Duration::from_millis(args.feature_source_timeout_ms);
        let url = args.feature_source_url.as_str();
        let source = (!url.is_empty()).then(|| FeatureRowSource::new(url, timeout)).transpose()?;
        Ok(Some(Self {
            local: LocalTier::new(args.feature_cache_bytes),
            redis,
            source,
            flights: SingleFlight::default(),
            namespace: namespace.to_owned(),
            ttl: Duration::from_secs(args.feature_ttl_seconds),
            metrics: metrics.clone(),
        }))
    }

    /// The row of an entity.
    ///
    /// # Errors
    /// `NotFound` when neither the cache nor the source has a row, `Unavailable` when Redis or the
    /// source, which might have one, does not answer.
    pub async fn row(&self, model: &str, entity: &str) -> Result<Arc<FeatureRow>, PredictError> {
        let found = self.find(model, entity).await;
        let outcome = match &found {
            Ok(Some((_, outcome))) => *outcome,
            Ok(None) | Err(_) => CacheOutcome::Error,
        };
        self.metrics.count_request(CACHE_NAME, outcome);
        let remedy = if self.source.is_some() {
            "the feature source has none either"
        } else {
            "write one with PUT /v2/models/<model>/features/<entity>"
        };
        let missing = || {
            PredictError::NotFound(format!(
                "there is no feature row for entity {entity:?}; {remedy}"
            ))
        };
        found?.map(|(row, _)| row).ok_or_else(missing)
    }

    async fn find(
        &self,
        model: &str,
        entity: &str,
    ) -> Result<Option<(Arc<FeatureRow>, CacheOutcome)>, PredictError> {
        let key = self.key(model, entity);
        loop {
            if let Some(row) = self.local.get(&key) {
                return Ok(Some((row, CacheOutcome::HitLocal)));
            }
            let leader = match self.flights.join(&key) {
                FlightRole::Leader(leader) => leader,
                FlightRole::Follower(follower) => match follower.wait().await {
                    Some(landing) => {
                        return landing.map(|row| row.map(|row| (row, CacheOutcome::Coalesced)));
                    }
                    None => continue,
                },
            };
            let found = self.load(&key, entity).await;
            leader.complete(found.clone().map(|found| found.map(|(row, _)| row)));
            return found;
        }
    }

    async fn load(
        &self,
        key: &CacheKey,
        entity: &str,
    ) -> Result<Option<(Arc<FeatureRow>, CacheOutcome)>, PredictError> {
        let kept = match &self.redis {
            Some(redis) => redis
                .try_get(&redis_key(key), 2 * MAX_ROW)
                .await
                .map(|bytes| self.decode(key, redis, bytes?)),
            None => Ok(None),
        };
        if let Ok(Some((row, left))) = &kept {
            self.insert_local(*key, row, *left);
            return Ok(Some((Arc::clone(row), CacheOutcome::HitRedis)));
        }
        let Some(source) = &self.source else {
            // The row may be in the Redis that does not answer, so it is not reported as missing.
            return kept.map(|_| None).map_err(|_| {
                PredictError::Unavailable(format!(
                    "the feature row of entity {entity:?} cannot be read now; try again later"
                ))
            });
        };
        let Some(text) = source.fetch_row(entity).await.map_err(PredictError::Unavailable)? else {
            return Ok(None);
        };
        let row = parse_row(&text).map_err(|e| {
            PredictError::Unavailable(format!(
                "the feature source's row of entity {entity:?} is not a row: {e}"
            ))
        })?;
        let row = Arc::new(row);
        if let Some(redis) = &self.redis {
            redis.set_in_background(redis_key(key), self.encode(key, &text), self.ttl);
        }
        self.insert_local(*key, &row, self.ttl);
        Ok(Some((row, CacheOutcome::Miss)))
    }

    /// Stores rows that a client wrote. With Redis, they are stored there when this returns.
    ///
    /// # Errors
    /// `Unavailable` when Redis does not accept the write.
    pub async fn write(
        &self,
        model: &str,
        entity: &str,
        text: &str,
        row: FeatureRow,
    ) -> Result<(), PredictError> {
        let key = self.key(model, entity);
        if let Some(redis) = &self.redis {
            let stored = redis.try_set(redis_key(&key), self.encode(&key, text), self.ttl).await;
            stored.map_err(|_| {
                PredictError::Unavailable(format!(
                    "the feature row of entity {entity:?} cannot be kept now; send it again later"
                ))
            })?;
        }
        self.insert_local(key, &Arc::new(row), self.ttl);
        Ok(())
    }

    /// Stores a row in this process: for its whole life without Redis, else for [`LOCAL_TTL`],
    /// because other pods may write a newer one.
    fn insert_local(&self, key: CacheKey, row: &Arc<FeatureRow>, ttl: Duration) {
        let ttl = if self.redis.is_some() { ttl.min(LOCAL_TTL) } else { ttl };
        let bytes = row.iter().map(|(input, row)| input.len() + row.get().len() + 64).sum();
        self.local.insert(key, Arc::clone(row), bytes, ttl);
        self.metrics.set_bytes(CACHE_NAME, self.local.bytes());
    }

    fn encode(&self, key: &CacheKey, text: &str) -> Vec<u8> {
        let expires =
            now_millis().saturating_add(u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX));
        value::encode_value(
            key,
            expires,
            &[Tensor { shape: vec![1], data: TensorData::Bytes(vec![text.to_owned()]) }],
        )
    }

    fn decode(
        &self,
        key: &CacheKey,
        redis: &RedisTier,
        bytes: Vec<u8>,
    ) -> Option<(Arc<FeatureRow>, Duration)> {
        let decoded = value::decode_value(key, &bytes).and_then(|(expires, tensors)| match tensors
            .first()
            .map(|t| &t.data)
        {
            Some(TensorData::Bytes(texts)) => Some((expires, parse_row(texts.first()?).ok()?)),
            _ => None,
        });
        let Some((expires, row)) = decoded else {
            redis.count_corrupt();
            return None;
        };
        let left = Duration::from_millis(expires.saturating_sub(now_millis())).min(self.ttl);
        (!left.is_zero()).then(|| (Arc::new(row), left))
    }

    fn key(&self, model: &str, entity: &str) -> CacheKey {
        CacheKey(row_digest([&self.namespace, model, entity]))
    }
}

/// Hash of the namespace and name of the ModelDeployment, the model and the entity: several
/// namespaces may share a Redis.
fn row_digest(parts: [&str; 3]) -> [u8; 32] {
    let mut hasher = Sha256::new_with_prefix(DOMAIN);
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// Parses a row.
///
/// # Errors
/// A text that says what is wrong with it.
pub fn parse_row(text: &str) -> Result<FeatureRow, String> {
    if text.len() > MAX_ROW {
        return Err(format!("{} bytes; a row has at most {MAX_ROW}", text.len()));
    }
    serde_json::from_str(text).map_err(|e| format!("want {{\"<input>\": <its row>, ...}}: {e}"))
}

fn redis_key(key: &CacheKey) -> Vec<u8> {
    [KEY_PREFIX, hex::encode(key.0).as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_namespaces_are_apart() {
        let of = |namespace| row_digest([namespace, "churn", "user-7"]);
        assert_ne!(of("prod/churn"), of("staging/churn"));
        assert_eq!(of("prod/churn"), of("prod/churn"));
        assert_ne!(row_digest(["a/b", "c", "d"]), row_digest(["a/bc", "", "d"]));
    }
}
