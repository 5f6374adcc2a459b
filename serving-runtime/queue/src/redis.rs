//! The queue on Redis Streams (Redis 7 or Valkey 7.2 and newer).
//!
//! There is one stream per priority with one consumer group. Every step that writes more than one
//! key is a script, so that a crash cannot leave half of it. An entry leaves its stream when its
//! job has ended: the length of the stream is bounded by the limit on jobs, and accepted entries
//! are never trimmed. A job that waits for another attempt stays in the group's list of pending
//! entries, which also counts deliveries.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{FromRedisValue, Script, ScriptInvocation, Value};
use slipway_runtime_common::trace::trace_redis_call;

use crate::job::{JobPriority, QueuedJob, entry_id};
use crate::queue::{
    CallbackOutcome, ClaimedJob, DueCallback, EnqueueOutcome, JobCompletion, JobLease, JobQueue,
    JobStatus, QueueError, QueueLag, QueueOptions, RetryRequest, StartDecision, StoredJob,
    duration_millis,
};

/// Approximate limit of entries in the dead-letter streams.
const MAX_DEAD_LETTERS: usize = 10_000;
/// Inactivity after which a worker counts as gone.
const CONSUMER_TIMEOUT: Duration = Duration::from_secs(3600);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

macro_rules! scripts {
    ($($name:ident),*) => {
        #[derive(Debug)]
        struct Scripts { $($name: Script),* }

        impl Scripts {
            fn new() -> Self {
                let whole = |body: &str| Script::new(&format!("{}{body}", include_str!("redis/common.lua")));
                Self { $($name: whole(include_str!(concat!("redis/", stringify!($name), ".lua")))),* }
            }
        }
    };
}

scripts!(
    enqueue, claim, reclaim, start, finish, retry, extend, cancel, leave, lag, callbacks, called
);

pub struct RedisQueue {
    connection: ConnectionManager,
    scripts: Scripts,
    base: String,
    options: QueueOptions,
}

impl std::fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection contains the password.
        f.debug_struct("RedisQueue").field("base", &self.base).finish_non_exhaustive()
    }
}

fn unexpected_error(e: impl std::fmt::Display) -> QueueError {
    QueueError::Unexpected(e.to_string())
}

/// An error message without secrets: it does not contain the URL.
fn unavailable_error(e: &redis::RedisError) -> QueueError {
    QueueError::Unavailable(e.to_string())
}

impl RedisQueue {
    /// A queue at `redis://[user:password@]host[:port][/db]` or `rediss://...`. Does not connect
    /// yet: a Redis that is down must not prevent the server from serving. Must be called inside a
    /// tokio runtime.
    ///
    /// # Errors
    /// When the URL is not a Redis URL.
    pub fn new(url: &str, options: QueueOptions) -> Result<Self, QueueError> {
        let client = redis::Client::open(url).map_err(|e| unavailable_error(&e))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(RESPONSE_TIMEOUT))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(500));
        let connection = ConnectionManager::new_lazy_with_config(client, config)
            .map_err(|e| unavailable_error(&e))?;
        let base = format!("{}:{{{}}}", options.prefix, options.name);
        Ok(Self { connection, scripts: Scripts::new(), base, options })
    }

    fn prepare<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        script.key(&self.base)
    }

    async fn invoke<T: FromRedisValue>(
        &self,
        invocation: &ScriptInvocation<'_>,
    ) -> Result<T, QueueError> {
        // A handle to the one shared connection.
        let mut connection = self.connection.clone();
        let asked = trace_redis_call("EVALSHA", invocation.invoke_async(&mut connection));
        asked.await.map_err(|e| unavailable_error(&e))
    }
}

fn parse_claimed(value: Value) -> Result<ClaimedJob, QueueError> {
    let (priority, entry, id, payload, deliveries): (String, String, Vec<u8>, Vec<u8>, u32) =
        redis::from_redis_value(value).map_err(unexpected_error)?;
    let priority = JobPriority::parse(&priority).ok_or_else(|| unexpected_error("a priority"))?;
    // A producer may write anything as `id`; an invalid one is treated as absent.
    let id = String::from_utf8(id).ok().filter(|id| crate::job::is_valid_id(id));
    let id = id.unwrap_or_else(|| entry_id(priority, &entry));
    Ok(ClaimedJob {
        lease: JobLease { id, priority, entry, token: String::new() },
        payload,
        deliveries,
    })
}

fn stored_job(fields: BTreeMap<String, Vec<u8>>) -> Option<StoredJob> {
    (!fields.is_empty()).then_some(StoredJob { fields })
}

impl JobQueue for RedisQueue {
    fn options(&self) -> &QueueOptions {
        &self.options
    }

    async fn enqueue(&self, job: &QueuedJob, max_jobs: u64) -> Result<EnqueueOutcome, QueueError> {
        let payload = serde_json::to_vec(job).map_err(unexpected_error)?;
        let mut call = self.prepare(&self.scripts.enqueue);
        call.arg(&job.id)
            .arg(job.priority.name())
            .arg(payload)
            .arg(job.key_digest())
            .arg(job.fingerprint());
        call.arg(self.options.retention_millis(job.callback_url.is_some()));
        call.arg(max_jobs).arg(self.options.max_bytes).arg(&job.model_id);
        let (what, id, waiting): (String, String, u64) = self.invoke(&call).await?;
        match what.as_str() {
            "accepted" => Ok(EnqueueOutcome::Accepted),
            "duplicate" => Ok(EnqueueOutcome::Duplicate(id)),
            "conflict" => Ok(EnqueueOutcome::Conflict(id)),
            "full" => Ok(EnqueueOutcome::Full(waiting)),
            other => Err(unexpected_error(other)),
        }
    }

    async fn claim(
        &self,
        consumer: &str,
        most: usize,
        lowest_first: bool,
    ) -> Result<Vec<ClaimedJob>, QueueError> {
        let mut call = self.prepare(&self.scripts.claim);
        call.arg(consumer).arg(most).arg(u8::from(lowest_first));
        self.invoke::<Vec<Value>>(&call).await?.into_iter().map(parse_claimed).collect()
    }

    async fn reclaim(&self, consumer: &str) -> Result<Option<ClaimedJob>, QueueError> {
        let mut call = self.prepare(&self.scripts.reclaim);
        call.arg(consumer).arg(duration_millis(self.options.lease));
        match self.invoke::<Value>(&call).await? {
            Value::Nil => Ok(None),
            value => parse_claimed(value).map(Some),
        }
    }

    async fn start(
        &self,
        lease: &JobLease,
        job: &QueuedJob,
        deliveries: u32,
        bytes: usize,
    ) -> Result<StartDecision, QueueError> {
        let mut call = self.prepare(&self.scripts.start);
        call.arg(lease.priority.name()).arg(&lease.entry).arg(&lease.id).arg(bytes);
        call.arg(job.expires_at(lease.written_at()).unwrap_or(0))
            .arg(job.key_digest())
            .arg(job.fingerprint());
        call.arg(self.options.retention_millis(job.callback_url.is_some())).arg(&job.model_id);
        call.arg(deliveries).arg(self.options.max_deliveries);
        match self.invoke::<String>(&call).await?.as_str() {
            "run" => Ok(StartDecision::Run),
            "duplicate" => Ok(StartDecision::Duplicate),
            "expired" => Ok(StartDecision::Expired),
            "dead" => Ok(StartDecision::Dead),
            other => Err(unexpected_error(other)),
        }
    }

    async fn extend(&self, consumer: &str, leases: &[JobLease]) -> Result<(), QueueError> {
        let mut call = self.prepare(&self.scripts.extend);
        call.arg(consumer);
        for lease in leases {
            call.arg(lease.priority.name()).arg(&lease.entry);
        }
        self.invoke::<i64>(&call).await.map(drop)
    }

    async fn finish(&self, lease: &JobLease, end: &JobCompletion) -> Result<bool, QueueError> {
        let mut call = self.prepare(&self.scripts.finish);
        call.arg(lease.priority.name()).arg(&lease.entry).arg(&lease.id).arg(end.status.name());
        call.arg(end.result.as_slice())
            .arg(&end.error)
            .arg(self.options.retention_millis(end.callback_url.is_some()));
        call.arg(end.callback_url.as_deref().unwrap_or_default());
        call.arg(end.payload.as_slice()).arg(MAX_DEAD_LETTERS).arg(&end.version);
        call.arg(end.traceparent.as_deref().unwrap_or_default());
        self.invoke(&call).await
    }

    async fn retry(
        &self,
        consumer: &str,
        lease: &JobLease,
        again: &RetryRequest,
    ) -> Result<bool, QueueError> {
        let mut call = self.prepare(&self.scripts.retry);
        call.arg(lease.priority.name()).arg(&lease.entry).arg(&lease.id).arg(consumer);
        call.arg(duration_millis(self.options.lease))
            .arg(duration_millis(again.delay))
            .arg(&again.error)
            .arg(u8::from(again.counts));
        self.invoke(&call).await
    }

    async fn leave(&self, consumer: &str) -> Result<(), QueueError> {
        let mut call = self.prepare(&self.scripts.leave);
        self.invoke::<i64>(call.arg(consumer).arg(duration_millis(CONSUMER_TIMEOUT)))
            .await
            .map(drop)
    }

    async fn get_job(&self, id: &str) -> Result<Option<StoredJob>, QueueError> {
        let mut connection = self.connection.clone();
        let key = format!("{}:job:{id}", self.base);
        let fields = redis::cmd("HGETALL")
            .arg(key)
            .query_async(&mut connection)
            .await
            .map_err(|e| unavailable_error(&e))?;
        Ok(stored_job(fields))
    }

    async fn cancel(&self, id: &str) -> Result<Option<JobStatus>, QueueError> {
        let mut call = self.prepare(&self.scripts.cancel);
        call.arg(id).arg(self.options.retention_millis(false));
        match self.invoke::<String>(&call).await?.as_str() {
            "missing" => Ok(None),
            "now" => Ok(Some(JobStatus::Queued)),
            other => JobStatus::parse(other).map(Some).ok_or_else(|| unexpected_error(other)),
        }
    }

    async fn lag(&self) -> Result<QueueLag, QueueError> {
        let call = self.prepare(&self.scripts.lag);
        let (waiting, taken, oldest, callbacks, callbacks_late, totals): (
            u64,
            u64,
            u64,
            u64,
            u64,
            Vec<String>,
        ) = self.invoke(&call).await?;
        let pairs = totals
            .chunks_exact(2)
            .filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.parse().ok()?)));
        Ok(QueueLag { waiting, taken, oldest, callbacks, callbacks_late, totals: pairs.collect() })
    }

    async fn claim_callbacks(
        &self,
        most: usize,
        lease: Duration,
    ) -> Result<Vec<DueCallback>, QueueError> {
        let mut call = self.prepare(&self.scripts.callbacks);
        call.arg(duration_millis(lease)).arg(most);
        let due: Vec<(String, u64, Vec<Vec<u8>>)> = self.invoke(&call).await?;
        let due = due.into_iter().map(|(id, now, flat)| {
            let mut flat = flat.into_iter();
            let mut fields = BTreeMap::new();
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                fields.insert(String::from_utf8_lossy(&name).into_owned(), value);
            }
            let view = StoredJob { fields };
            let age = now.saturating_sub(view.number("callback_first_at").unwrap_or(now));
            DueCallback { id, job: view, age, token: String::new() }
        });
        Ok(due.collect())
    }

    async fn record_callback(
        &self,
        due: &DueCallback,
        what: &CallbackOutcome,
    ) -> Result<bool, QueueError> {
        let (outcome, delay, note) = match what {
            CallbackOutcome::Delivered => ("delivered", Duration::ZERO, ""),
            CallbackOutcome::Retry(delay, note) => ("retry", *delay, note.as_str()),
            CallbackOutcome::Dead(note) => ("dead", Duration::ZERO, note.as_str()),
        };
        let mut call = self.prepare(&self.scripts.called);
        call.arg(&due.id)
            .arg(due.job.number("callback_attempts").unwrap_or(1))
            .arg(outcome)
            .arg(duration_millis(delay))
            .arg(note)
            .arg(MAX_DEAD_LETTERS);
        self.invoke(&call).await
    }
}
