//! The result cache: answers by what they depend on, in this process's memory and in Redis behind it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rand::Rng as _;
use tokio::time::timeout_at;

use super::args::CacheArgs;
use super::flight::{Flights, Leader, Role};
use super::hot::Hot;
use super::key::{Key, probes};
use super::local::Local;
use super::metrics::{CacheMetrics, Outcome};
use super::redis_tier::Redis;
use super::value;
use super::worth::Worth;
use crate::error::ApiError;
use crate::models::Model;
use crate::pool::Done;
use crate::tensor::Tensor;

const CACHE: &str = "result";
const PREFIX: &[u8] = b"slipway:result:1:";
/// One of so many inputs goes on to look up what is bypassed: in the cache at all, and in Redis, where a look costs more than a small model.
const PROBES: u64 = 16;
const REDIS_PROBES: u64 = 64;

/// Outputs, and how they were come by.
#[derive(Debug)]
pub struct Answer {
    /// All outputs in the signature's order.
    pub outputs: Vec<Tensor>,
    /// From where; `None` when there is no cache.
    pub outcome: Option<Outcome>,
}

/// What a leader tells those who wait for the same.
type Landing = Result<Arc<Vec<Tensor>>, ApiError>;

/// The result cache of a process; it holds answers of all of its models.
#[derive(Debug)]
pub struct ResultCache {
    local: Local<Key, Arc<Vec<Tensor>>>,
    redis: Option<Redis>,
    flights: Flights<Key, Landing>,
    worth: Mutex<Tiers>,
    hot: Option<Hot>,
    adaptive: bool,
    ttl: Duration,
    max_entry: usize,
    metrics: CacheMetrics,
}

/// What looking up is worth: altogether, and in Redis after this process's memory had nothing.
#[derive(Debug, Default)]
struct Tiers {
    all: Worth,
    redis: Worth,
}

impl ResultCache {
    /// The cache, when it is switched on.
    pub fn new(args: &CacheArgs, redis: Option<Redis>, metrics: &CacheMetrics) -> Option<Self> {
        args.result_cache.then(|| {
            metrics.expect(CACHE);
            Self {
                local: Local::new(args.result_cache_bytes),
                redis,
                flights: Flights::default(),
                worth: Mutex::default(),
                hot: (args.cache_hot_keys > 0).then(|| Hot::new(args.cache_hot_keys as usize)),
                adaptive: !args.no_cache_bypass,
                ttl: Duration::from_secs(args.result_cache_ttl_seconds),
                max_entry: usize::try_from(args.result_cache_max_entry_bytes).unwrap_or(usize::MAX),
                metrics: metrics.clone(),
            }
        })
    }

    /// The answer of `model` to `inputs`: a kept one, one that another request is about to get, or what `run` gives.
    ///
    /// # Errors
    /// Those of `run`; none of the cache's own.
    pub async fn answer<F>(
        &self,
        model: &Model,
        inputs: Vec<Tensor>,
        deadline: Instant,
        run: impl Fn(Vec<Tensor>) -> F,
    ) -> Result<Answer, ApiError>
    where
        F: Future<Output = Result<Done, ApiError>>,
    {
        let answer = self.find(model, inputs, deadline, run).await;
        let outcome = answer.as_ref().map_or(Some(Outcome::Error), |answer| answer.outcome);
        outcome.inspect(|outcome| self.metrics.count(CACHE, *outcome));
        answer
    }

    /// As [`Self::answer`], for nobody in particular: it is not counted.
    ///
    /// # Errors
    /// Those of `run`.
    pub async fn warm<F>(
        &self,
        model: &Model,
        inputs: Vec<Tensor>,
        deadline: Instant,
        run: impl Fn(Vec<Tensor>) -> F,
    ) -> Result<(), ApiError>
    where
        F: Future<Output = Result<Done, ApiError>>,
    {
        let answer = self.find(model, inputs, deadline, run).await.map(drop);
        // An empty cache that is being filled says nothing about what looking up is worth.
        self.tiers(|tiers| *tiers = Tiers::default());
        answer
    }

    /// What is hot here; `None` when that is not remembered.
    pub fn hot(&self) -> Option<&Hot> {
        self.hot.as_ref()
    }

    async fn find<F>(
        &self,
        model: &Model,
        inputs: Vec<Tensor>,
        deadline: Instant,
        run: impl Fn(Vec<Tensor>) -> F,
    ) -> Result<Answer, ApiError>
    where
        F: Future<Output = Result<Done, ApiError>>,
    {
        let begun = Instant::now();
        let (all, _) = self.bypassed();
        if all && !probes(&inputs, PROBES) {
            let done = run(inputs).await?;
            self.ran(&done);
            return Ok(Answer { outputs: done.outputs, outcome: Some(Outcome::Bypass) });
        }
        // The engine gives all outputs whatever is asked for, so all that ask for different ones share an answer.
        let key = Key::new(&model.digest, model.signature.outputs.iter().map(|output| output.name.as_str()), &inputs);
        if let Some(outputs) = self.local.get(&key) {
            if let Some(hot) = &self.hot {
                hot.note(key, inputs);
            }
            return Ok(self.hit(&outputs, Outcome::HitLocal, begun.elapsed()));
        }
        loop {
            let follower = match self.flights.join(&key) {
                Role::Leader(leader) => return self.lead(leader, key, inputs, begun, run).await,
                Role::Follower(follower) => follower,
            };
            let landed = timeout_at(deadline.into(), follower.landed()).await;
            match landed.map_err(|_| ApiError::Deadline(begun.elapsed().as_millis()))? {
                Some(Ok(outputs)) => return Ok(self.hit(&outputs, Outcome::Coalesced, Duration::ZERO)),
                Some(Err(error)) => return Err(error),
                // The leader's client left, or its time was up; ours may have more.
                None => {}
            }
        }
    }

    async fn lead<F>(
        &self,
        leader: Leader<Key, Landing>,
        key: Key,
        inputs: Vec<Tensor>,
        begun: Instant,
        run: impl Fn(Vec<Tensor>) -> F,
    ) -> Result<Answer, ApiError>
    where
        F: Future<Output = Result<Done, ApiError>>,
    {
        let redis = self.redis.as_ref().filter(|_| !self.bypassed().1 || probes(&inputs, REDIS_PROBES));
        // Who led before may have landed between our look and our joining.
        let found = match (self.local.get(&key), redis) {
            (Some(outputs), _) => Some((outputs, Outcome::HitLocal)),
            (None, Some(redis)) => self.look_into(redis, &key).await.map(|outputs| (outputs, Outcome::HitRedis)),
            (None, None) => None,
        };
        if let Some((outputs, outcome)) = found {
            leader.land(Ok(Arc::clone(&outputs)));
            return Ok(self.hit(&outputs, outcome, begun.elapsed()));
        }
        self.looked_up(begun.elapsed(), false);
        let result = run(inputs).await;
        match result {
            Ok(done) => {
                self.ran(&done);
                let outputs = Arc::new(done.outputs);
                self.keep(key, &outputs, redis);
                leader.land(Ok(Arc::clone(&outputs)));
                Ok(Answer { outputs: own(outputs), outcome: Some(Outcome::Miss) })
            }
            // A matter of this request's own time: the others must not hear of it.
            Err(error @ ApiError::Deadline(_)) => Err(error),
            Err(error) => {
                leader.land(Err(error.clone()));
                Err(error)
            }
        }
    }

    async fn look_into(&self, redis: &Redis, key: &Key) -> Option<Arc<Vec<Tensor>>> {
        if !redis.is_asked() {
            return None;
        }
        let begun = Instant::now();
        let found = redis.get(&name(key), self.max_stored()).await.and_then(|bytes| {
            let decoded = value::decode(key, &bytes);
            if decoded.is_none() {
                redis.corrupt();
            }
            decoded
        });
        let now = now_millis();
        let found = found.and_then(|(expires, outputs)| {
            let left = Duration::from_millis(expires.saturating_sub(now)).min(self.ttl);
            (!left.is_zero()).then_some((left, Arc::new(outputs)))
        });
        self.tiers(|tiers| tiers.redis.looked_up(begun.elapsed().as_secs_f64(), found.is_some()));
        let (left, outputs) = found?;
        self.local.insert(*key, Arc::clone(&outputs), size(&outputs), left);
        Some(outputs)
    }

    /// Keeps an answer in this process's memory and in `redis`, unless it is too large or holds a NaN or an infinity: what is wrong must not last.
    fn keep(&self, key: Key, outputs: &Arc<Vec<Tensor>>, redis: Option<&Redis>) {
        let bytes = size(outputs);
        if bytes > self.max_entry || outputs.iter().any(|output| output.data.first_non_finite().is_some()) {
            return;
        }
        let ttl = self.ttl.mul_f64(rand::rng().random_range(0.9..=1.0));
        self.local.insert(key, Arc::clone(outputs), bytes, ttl);
        self.metrics.keep(CACHE, self.local.bytes());
        if let Some(redis) = redis {
            let expires = now_millis().saturating_add(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX));
            redis.set(name(&key), value::encode(&key, expires, outputs), ttl);
        }
    }

    fn hit(&self, outputs: &Arc<Vec<Tensor>>, outcome: Outcome, took: Duration) -> Answer {
        if outcome != Outcome::Coalesced {
            self.looked_up(took, true);
            let saved = self.tiers(|tiers| tiers.all.saved());
            self.metrics.save(CACHE, saved - took.as_secs_f64());
        }
        Answer { outputs: outputs.as_ref().clone(), outcome: Some(outcome) }
    }

    fn looked_up(&self, took: Duration, hit: bool) {
        self.tiers(|tiers| tiers.all.looked_up(took.as_secs_f64(), hit));
    }

    fn ran(&self, done: &Done) {
        let seconds = (done.queued + done.inference).as_secs_f64();
        self.tiers(|tiers| {
            tiers.all.ran(seconds);
            tiers.redis.ran(seconds);
        });
    }

    /// Whether the whole cache, and whether Redis, costs more than it saves.
    fn bypassed(&self) -> (bool, bool) {
        let (all, redis) = self.tiers(|tiers| (tiers.all.bypassing(), tiers.redis.bypassing()));
        (self.adaptive && all, self.adaptive && redis)
    }

    fn tiers<T>(&self, act: impl FnOnce(&mut Tiers) -> T) -> T {
        let mut tiers = self.worth.lock().unwrap_or_else(PoisonError::into_inner);
        let before = (tiers.all.bypassing(), tiers.redis.bypassing());
        let result = act(&mut tiers);
        let after = (tiers.all.bypassing(), tiers.redis.bypassing());
        drop(tiers);
        if before != after {
            tracing::info!(
                all = after.0,
                redis = after.1,
                "the result cache is bypassed where it costs more than it saves"
            );
            self.metrics.bypass("all", self.adaptive && after.0);
            self.metrics.bypass("redis", self.adaptive && after.1);
        }
        result
    }

    /// Bytes of the largest value that we store.
    fn max_stored(&self) -> usize {
        // Names, shapes and lengths of the outputs take little; twice the values is plenty.
        value::HEADER + self.max_entry.saturating_mul(2)
    }
}

fn name(key: &Key) -> Vec<u8> {
    [PREFIX, hex::encode(key.0).as_bytes()].concat()
}

/// The outputs, without copying them when nobody else holds them.
fn own(outputs: Arc<Vec<Tensor>>) -> Vec<Tensor> {
    Arc::try_unwrap(outputs).unwrap_or_else(|shared| shared.as_ref().clone())
}

/// Milliseconds since 1970, by this machine's clock.
pub(crate) fn now_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Bytes of tensors in memory, roughly.
fn size(outputs: &[Tensor]) -> usize {
    outputs.iter().map(Tensor::bytes).sum()
}
