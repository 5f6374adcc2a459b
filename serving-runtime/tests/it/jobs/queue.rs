//! Compares the queue with a model of it, under any order of events.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use slipway_runtime_jobs::broker::JobBroker;
use slipway_runtime_queue::job::{JobPriority, QueuedJob};
use slipway_runtime_queue::queue::{
    CallbackOutcome, ClaimedJob, EnqueueOutcome, JobCompletion, JobQueue as _, JobStatus,
    QueueOptions, RetryRequest, StartDecision,
};

use super::super::broker::{Broker, Kind};
use super::super::support::eventually;

/// The possible events.
#[derive(Debug, Clone)]
enum Event {
    Enqueue { key: Option<u8>, priority: u8 },
    Write,
    Claim(u8, u8),
    Reclaim(u8),
    Finish(u8, bool),
    Retry(u8, bool),
    Cancel(u8),
    Call(u8),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (proptest::option::of(0..4_u8), 0..3_u8).prop_map(|(key, priority)| Event::Enqueue { key, priority }),
        1 => Just(Event::Write),
        3 => (0..3_u8, 1..4_u8).prop_map(|(w, n)| Event::Claim(w, n)),
        3 => (0..3_u8).prop_map(Event::Reclaim),
        4 => (any::<u8>(), any::<bool>()).prop_map(|(n, ok)| Event::Finish(n, ok)),
        2 => (any::<u8>(), any::<bool>()).prop_map(|(n, counts)| Event::Retry(n, counts)),
        1 => any::<u8>().prop_map(Event::Cancel),
        1 => any::<u8>().prop_map(Event::Call),
    ];
    proptest::collection::vec(event, 1..60)
}

pub(super) fn job(id: String, key: Option<u8>, priority: JobPriority) -> QueuedJob {
    QueuedJob {
        id,
        model_id: "m".into(),
        version: None,
        data: serde_json::value::RawValue::from_string("{}".into()).unwrap(),
        callback_url: Some("http://x/".into()),
        idempotency_key: key.map(|k| k.to_string()),
        priority,
        deadline: None,
        ttl_seconds: None,
        created_at: None,
        traceparent: None,
    }
}

/// The test's model of the queue.
struct World<'a> {
    broker: &'a Broker,
    queue: JobBroker,
    /// Last known status of every job.
    known: BTreeMap<String, JobStatus>,
    held: Vec<(String, ClaimedJob)>,
    next: usize,
    /// Jobs of external producers, which are registered when a worker sees them.
    written: Vec<String>,
}

const MOST: u32 = 3;

impl World<'_> {
    async fn step(&mut self, event: Event) {
        match event {
            Event::Enqueue { key, priority } => {
                self.next += 1;
                let priority = [JobPriority::High, JobPriority::Normal, JobPriority::Low]
                    [usize::from(priority)];
                let id = format!("j{}", self.next);
                match self
                    .queue
                    .enqueue(&job(id.clone(), key, priority), self.queue.options().max_entries)
                    .await
                    .unwrap()
                {
                    EnqueueOutcome::Accepted => {
                        assert!(self.known.insert(id, JobStatus::Queued).is_none())
                    }
                    EnqueueOutcome::Duplicate(of) => {
                        assert!(key.is_some() && self.known.contains_key(&of))
                    }
                    EnqueueOutcome::Full(n) => assert!(n >= 12),
                    EnqueueOutcome::Conflict(of) => panic!("conflict with {of}"),
                }
            }
            Event::Write => {
                let payload =
                    serde_json::to_string(&job(String::new(), None, JobPriority::Low)).unwrap();
                let id = self.broker.write_to(&self.queue.options().name, "low", &payload);
                self.known.insert(id.clone(), JobStatus::Queued);
                self.written.push(id);
            }
            Event::Claim(worker, n) => {
                let claimed =
                    self.queue.claim(&worker.to_string(), usize::from(n), n == 3).await.unwrap();
                assert!(claimed.len() <= usize::from(n));
                for c in claimed {
                    self.start(worker, c).await;
                }
            }
            Event::Reclaim(worker) => {
                if let Some(c) = self.queue.reclaim(&worker.to_string()).await.unwrap() {
                    assert!(c.deliveries >= 1);
                    self.start(worker, c).await;
                }
            }
            Event::Finish(n, ok) => self.finish(n, ok).await,
            Event::Retry(n, counts) => {
                let Some((worker, c)) = self.take(n) else { return };
                let again = RetryRequest { delay: Duration::ZERO, error: "again".into(), counts };
                if self.queue.retry(&worker, &c.lease, &again).await.unwrap() {
                    self.ended_stays(&c.lease.id, JobStatus::Queued);
                }
            }
            Event::Cancel(n) => {
                let Some(id) =
                    self.known.keys().nth(usize::from(n) % self.known.len().max(1)).cloned()
                else {
                    return;
                };
                let was = self.queue.cancel(&id).await.unwrap();
                if was == Some(JobStatus::Queued) {
                    assert_eq!(self.known[&id], JobStatus::Queued);
                    self.known.insert(id, JobStatus::Cancelled);
                }
            }
            Event::Call(n) => {
                for due in self.queue.claim_callbacks(4, Duration::ZERO).await.unwrap() {
                    let what = match n % 3 {
                        0 => CallbackOutcome::Delivered,
                        1 => CallbackOutcome::Retry(Duration::ZERO, "no".into()),
                        _ => CallbackOutcome::Dead("no".into()),
                    };
                    assert!(self.queue.record_callback(&due, &what).await.unwrap());
                    assert!(
                        n % 3 == 1
                            || !self
                                .queue
                                .record_callback(&due, &CallbackOutcome::Delivered)
                                .await
                                .unwrap(),
                        "settled once"
                    );
                }
            }
        }
    }

    async fn start(&mut self, worker: u8, c: ClaimedJob) {
        let parsed = QueuedJob::parse(&c.payload, 10_000).unwrap();
        match self.queue.start(&c.lease, &parsed, c.deliveries, c.payload.len()).await.unwrap() {
            StartDecision::Run => {
                assert!(c.deliveries <= MOST);
                self.ended_stays(&c.lease.id, JobStatus::Running);
                self.held.push((worker.to_string(), c));
            }
            StartDecision::Dead => {
                assert!(c.deliveries > MOST);
                self.held.push((worker.to_string(), c));
                let last = u8::try_from(self.held.len() - 1).unwrap();
                self.finish(last, false).await;
            }
            StartDecision::Duplicate => {}
            StartDecision::Expired => panic!("nothing has a deadline here"),
        }
    }

    async fn finish(&mut self, n: u8, ok: bool) {
        let Some((_, c)) = self.take(n) else { return };
        let status = if ok { JobStatus::Succeeded } else { JobStatus::Dead };
        let end = JobCompletion {
            traceparent: None,
            status,
            result: if ok { b"{}".to_vec() } else { vec![] },
            error: String::new(),
            version: String::new(),
            callback_url: Some("http://x/".into()),
            payload: c.payload.clone(),
        };
        let first = self.queue.finish(&c.lease, &end).await.unwrap();
        assert_eq!(first, !self.known[&c.lease.id].is_terminal(), "the first end stands");
        if first {
            self.known.insert(c.lease.id, status);
        }
    }

    fn take(&mut self, n: u8) -> Option<(String, ClaimedJob)> {
        let at = usize::from(n) % self.held.len().max(1);
        (at < self.held.len()).then(|| self.held.remove(at))
    }

    #[track_caller]
    fn ended_stays(&mut self, id: &str, now: JobStatus) {
        assert!(
            !self.known[id].is_terminal(),
            "{id} left its end {:?} for {now:?}",
            self.known[id]
        );
        self.known.insert(id.to_owned(), now);
    }

    async fn check(&self) {
        for (id, status) in &self.known {
            let kept = self.queue.get_job(id).await.unwrap().and_then(|v| v.status());
            // A job of an external producer is registered when a worker sees it.
            assert_eq!(kept.unwrap_or(JobStatus::Queued), *status, "{id}");
        }
        let live = self.known.values().filter(|s| !s.is_terminal()).count() as u64;
        // JetStream needs a moment until a deleted entry no longer counts.
        eventually("the lag is what lives", async || {
            let lag = self.queue.lag().await.unwrap();
            lag.waiting + lag.taken == live
        })
        .await;
        let lag = self.queue.lag().await.unwrap();
        let ended: u64 = ["succeeded", "failed", "dead", "expired", "cancelled", "duplicate"]
            .iter()
            .filter_map(|s| lag.totals.get(*s))
            .sum();
        let unseen = self.written.len() as u64;
        let enqueued = lag.totals.get("enqueued").copied().unwrap_or(0);
        assert!(enqueued <= ended + live && ended + live <= enqueued + unseen, "{lag:?}");
    }
}

pub(super) fn options(name: String) -> QueueOptions {
    QueueOptions {
        prefix: "slipway".into(),
        name,
        max_entries: 12,
        max_bytes: 1 << 20,
        // Every lease expires at once, so workers constantly take over each other's jobs.
        lease: Duration::ZERO,
        max_deliveries: MOST,
        result_ttl: Duration::from_secs(600),
        callback_age: Duration::from_secs(60),
        replicas: 1,
    }
}

/// Runs cases, each on a queue of its own.
fn no_order_of_events_loses_a_job_or_ends_one_twice(kind: Kind, cases: u32) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let broker = Broker::start(kind);
    let mut runner =
        TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let queues = std::cell::Cell::new(0);
    let outcome = runner.run(&events(), |events| {
        runtime.block_on(async {
            queues.set(queues.get() + 1);
            let queue =
                JobBroker::new(&broker.url(), options(format!("test{}", queues.get()))).unwrap();
            // An external producer needs an existing stream.
            queue.lag().await.unwrap();
            let (known, held, written) = (BTreeMap::new(), vec![], vec![]);
            let mut world = World { broker: &broker, queue, known, held, next: 0, written };
            for event in events {
                world.step(event).await;
            }
            world.check().await;
        });
        Ok(())
    });
    outcome.unwrap();
}

#[test]
fn no_order_of_events_costs_a_job_on_redis() {
    no_order_of_events_loses_a_job_or_ends_one_twice(Kind::Redis, 60);
}

#[test]
fn no_order_of_events_costs_a_job_on_jetstream() {
    no_order_of_events_loses_a_job_or_ends_one_twice(Kind::Nats, 20);
}
