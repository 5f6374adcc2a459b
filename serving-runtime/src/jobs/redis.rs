//! The queue on Redis Streams (Redis 7 or Valkey 7.2 and newer).
//!
//! One stream for each priority, one consumer group. Every step that touches more than one key is a script, so that no crash leaves half of
//! it behind. An entry leaves its stream when its job has ended: the stream's length is the bound, and nothing is ever trimmed that was
//! accepted. What waits for another attempt stays on the group's list of deliveries, which also counts them.

use std::collections::BTreeMap;
use std::time::Duration;

use redis::aio::{ConnectionManager, ConnectionManagerConfig};
use redis::{FromRedisValue, Script, ScriptInvocation, Value};

use super::job::{Job, Priority, entry_id};
use super::queue::{
    Again, Called, Claimed, Due, End, Enqueued, Lag, Lease, Queue, QueueError, QueueOptions, Start, Status, View,
    millis,
};
use crate::cache::redis_tier;

/// Entries of the dead-letter streams, about.
const DEAD_LETTERS: usize = 10_000;
/// A worker that took nothing and asked for nothing for so long is gone.
const SILENT: Duration = Duration::from_secs(3600);
const CONNECT: Duration = Duration::from_secs(2);
const ANSWER: Duration = Duration::from_secs(5);

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

scripts!(enqueue, claim, reclaim, start, finish, retry, extend, cancel, leave, lag, callbacks, called);

/// A queue on Redis.
pub struct RedisQueue {
    connection: ConnectionManager,
    scripts: Scripts,
    base: String,
    options: QueueOptions,
}

impl std::fmt::Debug for RedisQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The connection knows the password.
        f.debug_struct("RedisQueue").field("base", &self.base).finish_non_exhaustive()
    }
}

fn unexpected(e: impl std::fmt::Display) -> QueueError {
    QueueError::Unexpected(e.to_string())
}

/// The URL without what is secret, for messages.
fn failed(e: &redis::RedisError) -> QueueError {
    QueueError::Unavailable(e.to_string())
}

impl RedisQueue {
    /// A queue at `redis://[user:password@]host[:port][/db]` or `rediss://...`. Nothing is connected yet: a Redis that is down is no reason
    /// not to serve. Must be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the URL is none of Redis.
    pub fn new(url: &str, options: QueueOptions) -> Result<Self, QueueError> {
        let client = redis::Client::open(url).map_err(|e| failed(&e))?;
        let config = ConnectionManagerConfig::new()
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(ANSWER))
            .set_number_of_retries(1)
            .set_max_delay(Duration::from_millis(500));
        let connection = ConnectionManager::new_lazy_with_config(client, config).map_err(|e| failed(&e))?;
        let base = format!("{}:{{{}}}", options.prefix, options.name);
        Ok(Self { connection, scripts: Scripts::new(), base, options })
    }

    fn call<'s>(&self, script: &'s Script) -> ScriptInvocation<'s> {
        script.key(&self.base)
    }

    async fn run<T: FromRedisValue>(&self, invocation: &ScriptInvocation<'_>) -> Result<T, QueueError> {
        // A handle on the one shared connection.
        let mut connection = self.connection.clone();
        let asked = redis_tier::traced("EVALSHA", invocation.invoke_async(&mut connection));
        asked.await.map_err(|e| failed(&e))
    }
}

fn claimed(value: Value) -> Result<Claimed, QueueError> {
    let (priority, entry, id, payload, deliveries): (String, String, Vec<u8>, Vec<u8>, u32) =
        redis::from_redis_value(value).map_err(unexpected)?;
    let priority = Priority::parse(&priority).ok_or_else(|| unexpected("a priority"))?;
    // A producer may have written anything as `id`; what is no id is as good as none.
    let id = String::from_utf8(id).ok().filter(|id| super::job::valid_id(id));
    let id = id.unwrap_or_else(|| entry_id(priority, &entry));
    Ok(Claimed { lease: Lease { id, priority, entry, token: String::new() }, payload, deliveries })
}

fn view(fields: BTreeMap<String, Vec<u8>>) -> Option<View> {
    (!fields.is_empty()).then_some(View { fields })
}

impl Queue for RedisQueue {
    fn options(&self) -> &QueueOptions {
        &self.options
    }

    async fn enqueue(&self, job: &Job, max_jobs: u64) -> Result<Enqueued, QueueError> {
        let payload = serde_json::to_vec(job).map_err(unexpected)?;
        let mut call = self.call(&self.scripts.enqueue);
        call.arg(&job.id).arg(job.priority.name()).arg(payload).arg(job.key_digest()).arg(job.fingerprint());
        call.arg(self.options.kept_for(job.callback_url.is_some()));
        call.arg(max_jobs).arg(self.options.max_bytes).arg(&job.model_id);
        let (what, id, waiting): (String, String, u64) = self.run(&call).await?;
        match what.as_str() {
            "accepted" => Ok(Enqueued::Accepted),
            "duplicate" => Ok(Enqueued::Duplicate(id)),
            "conflict" => Ok(Enqueued::Conflict(id)),
            "full" => Ok(Enqueued::Full(waiting)),
            other => Err(unexpected(other)),
        }
    }

    async fn claim(&self, consumer: &str, most: usize, lowest_first: bool) -> Result<Vec<Claimed>, QueueError> {
        let mut call = self.call(&self.scripts.claim);
        call.arg(consumer).arg(most).arg(u8::from(lowest_first));
        self.run::<Vec<Value>>(&call).await?.into_iter().map(claimed).collect()
    }

    async fn reclaim(&self, consumer: &str) -> Result<Option<Claimed>, QueueError> {
        let mut call = self.call(&self.scripts.reclaim);
        call.arg(consumer).arg(millis(self.options.lease));
        match self.run::<Value>(&call).await? {
            Value::Nil => Ok(None),
            value => claimed(value).map(Some),
        }
    }

    async fn start(&self, lease: &Lease, job: &Job, deliveries: u32, bytes: usize) -> Result<Start, QueueError> {
        let mut call = self.call(&self.scripts.start);
        call.arg(lease.priority.name()).arg(&lease.entry).arg(&lease.id).arg(bytes);
        call.arg(job.expires_at(lease.written()).unwrap_or(0)).arg(job.key_digest()).arg(job.fingerprint());
        call.arg(self.options.kept_for(job.callback_url.is_some())).arg(&job.model_id);
        call.arg(deliveries).arg(self.options.max_deliveries);
        match self.run::<String>(&call).await?.as_str() {
            "run" => Ok(Start::Run),
            "duplicate" => Ok(Start::Duplicate),
            "expired" => Ok(Start::Expired),
            "dead" => Ok(Start::Dead),
            other => Err(unexpected(other)),
        }
    }

    async fn extend(&self, consumer: &str, leases: &[Lease]) -> Result<(), QueueError> {
        let mut call = self.call(&self.scripts.extend);
        call.arg(consumer);
        for lease in leases {
            call.arg(lease.priority.name()).arg(&lease.entry);
        }
        self.run::<i64>(&call).await.map(drop)
    }

    async fn finish(&self, lease: &Lease, end: &End) -> Result<bool, QueueError> {
        let mut call = self.call(&self.scripts.finish);
        call.arg(lease.priority.name()).arg(&lease.entry).arg(&lease.id).arg(end.status.name());
        call.arg(end.result.as_slice()).arg(&end.error).arg(self.options.kept_for(end.callback_url.is_some()));
        call.arg(end.callback_url.as_deref().unwrap_or_default());
        call.arg(end.payload.as_slice()).arg(DEAD_LETTERS).arg(&end.version);
        call.arg(end.traceparent.as_deref().unwrap_or_default());
        self.run(&call).await
    }

    async fn retry(&self, consumer: &str, lease: &Lease, again: &Again) -> Result<bool, QueueError> {
        let mut call = self.call(&self.scripts.retry);
        call.arg(lease.priority.name()).arg(&lease.entry).arg(&lease.id).arg(consumer);
        call.arg(millis(self.options.lease)).arg(millis(again.delay)).arg(&again.error).arg(u8::from(again.counts));
        self.run(&call).await
    }

    async fn leave(&self, consumer: &str) -> Result<(), QueueError> {
        let mut call = self.call(&self.scripts.leave);
        self.run::<i64>(call.arg(consumer).arg(millis(SILENT))).await.map(drop)
    }

    async fn view(&self, id: &str) -> Result<Option<View>, QueueError> {
        let mut connection = self.connection.clone();
        let key = format!("{}:job:{id}", self.base);
        let fields = redis::cmd("HGETALL").arg(key).query_async(&mut connection).await.map_err(|e| failed(&e))?;
        Ok(view(fields))
    }

    async fn cancel(&self, id: &str) -> Result<Option<Status>, QueueError> {
        let mut call = self.call(&self.scripts.cancel);
        call.arg(id).arg(self.options.kept_for(false));
        match self.run::<String>(&call).await?.as_str() {
            "missing" => Ok(None),
            "now" => Ok(Some(Status::Queued)),
            other => Status::parse(other).map(Some).ok_or_else(|| unexpected(other)),
        }
    }

    async fn lag(&self) -> Result<Lag, QueueError> {
        let call = self.call(&self.scripts.lag);
        let (waiting, taken, oldest, callbacks, callbacks_late, totals): (u64, u64, u64, u64, u64, Vec<String>) =
            self.run(&call).await?;
        let pairs = totals.chunks_exact(2).filter_map(|pair| Some((pair.first()?.clone(), pair.get(1)?.parse().ok()?)));
        Ok(Lag { waiting, taken, oldest, callbacks, callbacks_late, totals: pairs.collect() })
    }

    async fn callbacks(&self, most: usize, lease: Duration) -> Result<Vec<Due>, QueueError> {
        let mut call = self.call(&self.scripts.callbacks);
        call.arg(millis(lease)).arg(most);
        let due: Vec<(String, u64, Vec<Vec<u8>>)> = self.run(&call).await?;
        let due = due.into_iter().map(|(id, now, flat)| {
            let mut flat = flat.into_iter();
            let mut fields = BTreeMap::new();
            while let (Some(name), Some(value)) = (flat.next(), flat.next()) {
                fields.insert(String::from_utf8_lossy(&name).into_owned(), value);
            }
            let view = View { fields };
            let age = now.saturating_sub(view.number("callback_first_at").unwrap_or(now));
            Due { id, view, age, token: String::new() }
        });
        Ok(due.collect())
    }

    async fn called(&self, due: &Due, what: &Called) -> Result<bool, QueueError> {
        let (outcome, delay, note) = match what {
            Called::Delivered => ("delivered", Duration::ZERO, ""),
            Called::Retry(delay, note) => ("retry", *delay, note.as_str()),
            Called::Dead(note) => ("dead", Duration::ZERO, note.as_str()),
        };
        let mut call = self.call(&self.scripts.called);
        call.arg(&due.id)
            .arg(due.view.number("callback_attempts").unwrap_or(1))
            .arg(outcome)
            .arg(millis(delay))
            .arg(note)
            .arg(DEAD_LETTERS);
        self.run(&call).await
    }
}
