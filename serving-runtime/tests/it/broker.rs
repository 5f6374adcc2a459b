//! The brokers behind a queue, for tests that run against each of them.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::Handle;
use tokio::task::block_in_place;

use super::nats::Nats;
use super::redis_aof::Redis;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Redis,
    Nats,
}

/// A running broker that belongs to one test.
pub(crate) enum Broker {
    Redis(Redis),
    Nats(Nats),
}

/// Blocks on an answer inside a test, which must run on several threads.
fn wait<F: Future>(answer: F) -> F::Output {
    block_in_place(|| Handle::current().block_on(answer))
}

impl Broker {
    pub(crate) fn start(kind: Kind) -> Self {
        match kind {
            Kind::Redis => Self::Redis(Redis::start()),
            Kind::Nats => Self::Nats(Nats::start()),
        }
    }

    pub(crate) fn run(&mut self) -> bool {
        match self {
            Self::Redis(redis) => redis.run(),
            Self::Nats(nats) => nats.run(),
        }
    }

    pub(crate) fn kill(&mut self) {
        match self {
            Self::Redis(redis) => redis.kill(),
            Self::Nats(nats) => nats.kill(),
        }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Redis(redis) => redis.url(),
            Self::Nats(nats) => nats.url(),
        }
    }

    /// A counter of the queue `test`.
    pub(crate) fn total(&self, name: &str) -> i64 {
        match self {
            Self::Redis(redis) => redis.total(name),
            Self::Nats(nats) => wait(nats.total(name)),
        }
    }

    /// Entries of the queue `test`.
    pub(crate) fn entries(&self) -> i64 {
        match self {
            Self::Redis(redis) => redis.entries(),
            Self::Nats(nats) => wait(nats.subjects("work.*.*")).len() as i64,
        }
    }

    /// Checks the conservation law: every job that was enqueued is in exactly one place. On
    /// JetStream an entry outlives its job for a moment.
    #[track_caller]
    pub(crate) fn conserved(&self) {
        let entries = match self {
            Self::Redis(redis) => return redis.conserved(),
            Self::Nats(_) => self.entries(),
        };
        let ends = ["succeeded", "failed", "dead", "expired", "cancelled", "duplicate"];
        let ended: i64 = ends.iter().map(|end| self.total(end)).sum();
        let enqueued = self.total("enqueued");
        assert!(
            ended <= enqueued && enqueued <= ended + entries,
            "{enqueued} came, {ended} ended, {entries} are there"
        );
        if entries == 0 {
            assert_eq!(self.total("bytes"), 0);
        }
    }

    /// Writes an entry to the queue `test` as an external producer does; returns the id of its job.
    pub(crate) fn write(&self, priority: &str, job: &str) -> String {
        self.write_to("test", priority, job)
    }

    /// The same, for a queue of any name.
    pub(crate) fn write_to(&self, queue: &str, priority: &str, job: &str) -> String {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        match self {
            Self::Redis(redis) => {
                let stream = format!("slipway:{{{queue}}}:jobs:{priority}");
                let entry: String = redis.command(&["XADD", &stream, "*", "job", job]);
                format!("{priority}-{entry}")
            }
            Self::Nats(nats) => {
                let id = format!("own-{}", NEXT.fetch_add(1, Ordering::Relaxed));
                wait(nats.write(queue, priority, &id, job));
                id
            }
        }
    }

    /// The dead letters of jobs.
    pub(crate) fn dead_letters(&self) -> Vec<String> {
        match self {
            Self::Redis(redis) => {
                let all: Vec<(String, Vec<String>)> =
                    redis.command(&["XRANGE", "slipway:{test}:dead", "-", "+"]);
                all.into_iter().map(|(_, fields)| fields.join(" ")).collect()
            }
            Self::Nats(nats) => wait(async {
                let mut all = Vec::new();
                for subject in nats.subjects("dead.*").await {
                    all.push(format!("{subject} {}", nats.read(&subject).await.0));
                }
                all
            }),
        }
    }

    /// How many callbacks were given up, and how many wait.
    pub(crate) fn callbacks(&self) -> (usize, usize) {
        match self {
            Self::Redis(redis) => (
                redis.command(&["XLEN", "slipway:{test}:callbacks:dead"]),
                redis.command(&["ZCARD", "slipway:{test}:callbacks"]),
            ),
            Self::Nats(nats) => wait(async {
                (nats.subjects("undelivered.*").await.len(), nats.subjects("call.*").await.len())
            }),
        }
    }

    /// For how many milliseconds an ended job is kept.
    pub(crate) fn kept_for(&self, id: &str) -> i64 {
        match self {
            Self::Redis(redis) => redis.command(&["PTTL", &format!("slipway:{{test}}:job:{id}")]),
            Self::Nats(nats) => {
                let (_, ttl) = wait(nats.read(&format!("slipway__test.job.{id}")));
                ttl.unwrap().strip_suffix('s').unwrap().parse::<i64>().unwrap() * 1000
            }
        }
    }
}
