//! The result cache: answers by everything they depend on, in the memory of this process and in
//! Redis behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use slipway_chassis::backoff::Jitter;
use slipway_runtime_common::clock::now_millis;
use slipway_runtime_engine::error::PredictError;
use slipway_runtime_engine::pool::InferenceResult;
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::Tensor;
use tokio::time::timeout_at;

use crate::args::CacheArgs;
use crate::bypass_policy::BypassPolicy;
use crate::hot_keys::HotKeys;
use crate::key::{CacheKey, is_probe_input};
use crate::local::LocalTier;
use crate::metrics::{CacheMetrics, CacheOutcome};
use crate::redis_tier::RedisTier;
use crate::single_flight::{FlightLeader, FlightRole, SingleFlight};
use crate::value;

const CACHE_NAME: &str = "result";
const KEY_PREFIX: &[u8] = b"slipway:result:1:";
/// While a tier is bypassed, one of this many inputs is still looked up: in the whole cache, and in
/// Redis, where a look-up costs more than running a small model.
const PROBE_EVERY: u64 = 16;
const REDIS_PROBE_EVERY: u64 = 64;
/// So that what was kept together is not computed anew together.
const TTL_JITTER: Jitter = Jitter::Subtract(0.1);

/// Outputs, and how they were obtained.
#[derive(Debug)]
pub struct CacheAnswer {
    /// All outputs in the signature's order.
    pub outputs: Vec<Tensor>,
    /// How the cache was involved; `None` without a cache.
    pub outcome: Option<CacheOutcome>,
    /// Time until the answer was found, or was known to be missing; 0 where nothing was looked up.
    pub lookup: Duration,
}

/// What runs the model where the cache has no answer: the bounds of a function, under one name.
/// Not `AsyncFn`, whose future cannot be shown to be `Send` behind these generic methods.
pub trait ModelRun: Fn(Vec<Tensor>) -> <Self as ModelRun>::Running {
    /// The run, under way.
    type Running: Future<Output = Result<InferenceResult, PredictError>>;
}

impl<F, R> ModelRun for F
where
    F: Fn(Vec<Tensor>) -> R,
    R: Future<Output = Result<InferenceResult, PredictError>>,
{
    type Running = R;
}

/// The result that the leader of a flight shares with its followers.
type SharedOutputsResult = Result<Arc<Vec<Tensor>>, PredictError>;

/// The result cache of a process, for all of its models.
#[derive(Debug)]
pub struct InferResultCache {
    local: LocalTier<CacheKey, Arc<Vec<Tensor>>>,
    redis: Option<RedisTier>,
    flights: SingleFlight<CacheKey, SharedOutputsResult>,
    policies: Mutex<TierPolicies>,
    hot_keys: Option<HotKeys>,
    adaptive: bool,
    ttl: Duration,
    max_entry: usize,
    metrics: CacheMetrics,
}

/// The bypass policies: one for the whole cache, one for Redis after a miss in local memory.
#[derive(Debug, Default)]
struct TierPolicies {
    all: BypassPolicy,
    redis: BypassPolicy,
}

impl InferResultCache {
    /// Creates the cache when it is enabled.
    pub fn new(args: &CacheArgs, redis: Option<RedisTier>, metrics: &CacheMetrics) -> Option<Self> {
        args.result_cache.then(|| {
            metrics.init_series(CACHE_NAME);
            Self {
                local: LocalTier::new(args.result_cache_bytes),
                redis,
                flights: SingleFlight::default(),
                policies: Mutex::default(),
                hot_keys: (args.cache_hot_keys > 0)
                    .then(|| HotKeys::new(args.cache_hot_keys as usize)),
                adaptive: !args.no_cache_bypass,
                ttl: Duration::from_secs(args.result_cache_ttl_seconds),
                max_entry: usize::try_from(args.result_cache_max_entry_bytes).unwrap_or(usize::MAX),
                metrics: metrics.clone(),
            }
        })
    }

    /// The answer to `inputs` of the model with this digest and signature: a cached one, that of a
    /// concurrent request with the same key, or the result of `run`.
    ///
    /// # Errors
    /// Those of `run`; none of the cache's own.
    pub async fn get_or_run(
        &self,
        digest: &str,
        signature: &ModelSignature,
        inputs: Vec<Tensor>,
        deadline: Instant,
        run: impl ModelRun,
    ) -> Result<CacheAnswer, PredictError> {
        let answer = self.resolve(digest, signature, inputs, deadline, run).await;
        let outcome = answer.as_ref().map_or(Some(CacheOutcome::Error), |answer| answer.outcome);
        outcome.inspect(|outcome| self.metrics.count_request(CACHE_NAME, *outcome));
        answer
    }

    /// Like [`Self::get_or_run`] without a request; it is not counted.
    ///
    /// # Errors
    /// Those of `run`.
    pub async fn warm(
        &self,
        digest: &str,
        signature: &ModelSignature,
        inputs: Vec<Tensor>,
        deadline: Instant,
        run: impl ModelRun,
    ) -> Result<(), PredictError> {
        let answer = self.resolve(digest, signature, inputs, deadline, run).await.map(drop);
        // The look-ups of a cache that is being filled must not influence the bypass policies.
        self.with_policies(|tiers| *tiers = TierPolicies::default());
        answer
    }

    /// The most requested inputs; `None` when they are not recorded.
    pub fn hot_keys(&self) -> Option<&HotKeys> {
        self.hot_keys.as_ref()
    }

    async fn resolve(
        &self,
        digest: &str,
        signature: &ModelSignature,
        inputs: Vec<Tensor>,
        deadline: Instant,
        run: impl ModelRun,
    ) -> Result<CacheAnswer, PredictError> {
        let begun = Instant::now();
        let (all, _) = self.bypassed_tiers();
        if all && !is_probe_input(&inputs, PROBE_EVERY) {
            let done = run(inputs).await?;
            self.record_run(&done);
            return Ok(CacheAnswer {
                outputs: done.outputs,
                outcome: Some(CacheOutcome::Bypass),
                lookup: Duration::ZERO,
            });
        }
        // The engine always computes all outputs, so requests for different outputs share one
        // entry.
        let key = CacheKey::new(
            digest,
            signature.outputs.iter().map(|output| output.name.as_str()),
            &inputs,
        );
        if let Some(outputs) = self.local.get(&key) {
            if let Some(hot) = &self.hot_keys {
                hot.record_hit(key, inputs);
            }
            return Ok(self.record_hit(&outputs, CacheOutcome::HitLocal, begun.elapsed()));
        }
        loop {
            let follower = match self.flights.join(&key) {
                FlightRole::Leader(leader) => {
                    return self.run_as_leader(leader, key, inputs, begun, run).await;
                }
                FlightRole::Follower(follower) => follower,
            };
            let landed = timeout_at(deadline.into(), follower.wait()).await;
            match landed.map_err(|_| PredictError::DeadlineExceeded(begun.elapsed().as_millis()))? {
                Some(Ok(outputs)) => {
                    return Ok(self.record_hit(&outputs, CacheOutcome::Coalesced, begun.elapsed()));
                }
                Some(Err(error)) => return Err(error),
                // The leader's client left or its deadline passed; this request may have more time.
                None => {}
            }
        }
    }

    async fn run_as_leader(
        &self,
        leader: FlightLeader<CacheKey, SharedOutputsResult>,
        key: CacheKey,
        inputs: Vec<Tensor>,
        begun: Instant,
        run: impl ModelRun,
    ) -> Result<CacheAnswer, PredictError> {
        let redis = self
            .redis
            .as_ref()
            .filter(|_| !self.bypassed_tiers().1 || is_probe_input(&inputs, REDIS_PROBE_EVERY));
        // The previous leader may have finished between this request's look-up and its join.
        let found = match (self.local.get(&key), redis) {
            (Some(outputs), _) => Some((outputs, CacheOutcome::HitLocal)),
            (None, Some(redis)) => self
                .get_from_redis(redis, &key)
                .await
                .map(|outputs| (outputs, CacheOutcome::HitRedis)),
            (None, None) => None,
        };
        if let Some((outputs, outcome)) = found {
            leader.complete(Ok(Arc::clone(&outputs)));
            return Ok(self.record_hit(&outputs, outcome, begun.elapsed()));
        }
        let lookup = begun.elapsed();
        self.record_lookup(lookup, false);
        let result = run(inputs).await;
        match result {
            Ok(done) => {
                self.record_run(&done);
                let outputs = Arc::new(done.outputs);
                self.insert(key, &outputs, redis);
                leader.complete(Ok(Arc::clone(&outputs)));
                Ok(CacheAnswer {
                    outputs: take_outputs(outputs),
                    outcome: Some(CacheOutcome::Miss),
                    lookup,
                })
            }
            // The deadline of this request only; followers must not receive this error.
            Err(error @ PredictError::DeadlineExceeded(_)) => Err(error),
            Err(error) => {
                leader.complete(Err(error.clone()));
                Err(error)
            }
        }
    }

    async fn get_from_redis(&self, redis: &RedisTier, key: &CacheKey) -> Option<Arc<Vec<Tensor>>> {
        if !redis.is_available() {
            return None;
        }
        let begun = Instant::now();
        let found = redis.get(&redis_key(key), self.max_stored()).await.and_then(|bytes| {
            let decoded = value::decode_value(key, &bytes);
            if decoded.is_none() {
                redis.count_corrupt();
            }
            decoded
        });
        let now = now_millis();
        let found = found.and_then(|(expires, outputs)| {
            let left = Duration::from_millis(expires.saturating_sub(now)).min(self.ttl);
            (!left.is_zero()).then_some((left, Arc::new(outputs)))
        });
        self.with_policies(|tiers| {
            tiers.redis.record_lookup(begun.elapsed().as_secs_f64(), found.is_some())
        });
        let (left, outputs) = found?;
        self.local.insert(*key, Arc::clone(&outputs), outputs_bytes(&outputs), left);
        Some(outputs)
    }

    /// Stores an answer in local memory and in `redis`, unless it is too large or holds a NaN or an
    /// infinity: a faulty answer must not be repeated.
    fn insert(&self, key: CacheKey, outputs: &Arc<Vec<Tensor>>, redis: Option<&RedisTier>) {
        let bytes = outputs_bytes(outputs);
        if bytes > self.max_entry
            || outputs.iter().any(|output| output.data.first_non_finite().is_some())
        {
            return;
        }
        let ttl = TTL_JITTER.apply_random(self.ttl);
        self.local.insert(key, Arc::clone(outputs), bytes, ttl);
        self.metrics.set_bytes(CACHE_NAME, self.local.bytes());
        if let Some(redis) = redis {
            let expires =
                now_millis().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            redis.set_in_background(
                redis_key(&key),
                value::encode_value(&key, expires, outputs),
                ttl,
            );
        }
    }

    fn record_hit(
        &self,
        outputs: &Arc<Vec<Tensor>>,
        outcome: CacheOutcome,
        took: Duration,
    ) -> CacheAnswer {
        if outcome != CacheOutcome::Coalesced {
            self.record_lookup(took, true);
            let saved = self.with_policies(|tiers| tiers.all.saved_seconds());
            self.metrics.add_saved_seconds(CACHE_NAME, saved - took.as_secs_f64());
        }
        CacheAnswer { outputs: outputs.as_ref().clone(), outcome: Some(outcome), lookup: took }
    }

    fn record_lookup(&self, took: Duration, hit: bool) {
        self.with_policies(|tiers| tiers.all.record_lookup(took.as_secs_f64(), hit));
    }

    fn record_run(&self, done: &InferenceResult) {
        let seconds = (done.queued + done.inference).as_secs_f64();
        self.with_policies(|tiers| {
            tiers.all.record_run(seconds);
            tiers.redis.record_run(seconds);
        });
    }

    /// Whether the whole cache, and whether Redis, is bypassed.
    fn bypassed_tiers(&self) -> (bool, bool) {
        let (all, redis) =
            self.with_policies(|tiers| (tiers.all.is_bypassing(), tiers.redis.is_bypassing()));
        (self.adaptive && all, self.adaptive && redis)
    }

    fn with_policies<T>(&self, act: impl FnOnce(&mut TierPolicies) -> T) -> T {
        let mut tiers = self.policies.lock();
        let before = (tiers.all.is_bypassing(), tiers.redis.is_bypassing());
        let result = act(&mut tiers);
        let after = (tiers.all.is_bypassing(), tiers.redis.is_bypassing());
        drop(tiers);
        if before != after {
            tracing::info!(
                all = after.0,
                redis = after.1,
                "the result cache is bypassed where it costs more than it saves"
            );
            self.metrics.set_bypassed("all", self.adaptive && after.0);
            self.metrics.set_bypassed("redis", self.adaptive && after.1);
        }
        result
    }

    /// Largest stored value in bytes.
    fn max_stored(&self) -> usize {
        // Names, shapes and lengths of the outputs are small; twice the size of the values is an
        // ample limit.
        value::HEADER_LEN + self.max_entry.saturating_mul(2)
    }
}

fn redis_key(key: &CacheKey) -> Vec<u8> {
    [KEY_PREFIX, hex::encode(key.0).as_bytes()].concat()
}

/// The outputs, without a copy if there is no other reference to them.
fn take_outputs(outputs: Arc<Vec<Tensor>>) -> Vec<Tensor> {
    Arc::try_unwrap(outputs).unwrap_or_else(|shared| shared.as_ref().clone())
}

/// Approximate size of tensors in memory, in bytes.
fn outputs_bytes(outputs: &[Tensor]) -> usize {
    outputs.iter().map(Tensor::bytes).sum()
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use slipway_runtime_engine::tensor::TensorData;

    use super::*;

    #[derive(Parser)]
    struct Options {
        #[command(flatten)]
        cache: CacheArgs,
    }

    #[tokio::test]
    async fn an_answer_carries_the_time_of_its_lookup() {
        let options = Options::parse_from(["test", "--result-cache", "--no-cache-bypass"]);
        let cache = InferResultCache::new(&options.cache, None, &CacheMetrics::default()).unwrap();
        let signature = ModelSignature { inputs: Vec::new(), outputs: Vec::new() };
        let deadline = Instant::now() + Duration::from_secs(60);
        for found in [false, true] {
            let inputs = vec![Tensor { shape: vec![1], data: TensorData::F32(vec![0.5]) }];
            let run = async |outputs| {
                Ok(InferenceResult { outputs, queued: Duration::ZERO, inference: Duration::ZERO })
            };
            let answer = cache.get_or_run("digest", &signature, inputs, deadline, run).await;
            let CacheAnswer { outcome, lookup, .. } = answer.unwrap();
            assert_eq!(outcome.and_then(CacheOutcome::found), Some(found));
            assert!(lookup > Duration::ZERO);
        }
    }
}
