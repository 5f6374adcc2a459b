//! The queue on NATS JetStream (2.12 and newer).
//!
//! One stream keeps everything of a queue, so that a step that touches several things is one atomic batch (NATS ADR-50): a job with its entry
//! and its key of idempotency, an end with its callback and counters. The job's own message is the truth, changed only when it is still as it
//! was read; the entries are what consumers hand out, each with a lease, and one that is acknowledged is gone. An entry that outlives its job,
//! as after a crash between a job's end and the acknowledgement, is handed out once more and found to be a duplicate.

mod doc;
mod group;
mod link;
mod names;
mod room;
mod steps;
mod store;
mod tally;

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use self::link::Link;
use self::names::Names;
use self::room::Room;
use self::tally::Tally;
use super::job::{Job, Priority, entry_id, valid_id};
use super::queue::{
    Again, Called, Claimed, Due, End, Enqueued, Lag, Lease, Queue, QueueError, QueueOptions, Start, Status, View,
};
use crate::cache::result::now_millis;

/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// A process that counted nothing for so long is gone.
const SILENT_MS: u64 = 3_600_000;
/// How long dead letters are kept: 30 days.
const DEAD_LETTERS_MS: u64 = 30 * 24 * 3_600_000;
/// Attempts at a step while others are faster.
const TRIES: usize = 100;
/// Bytes of a message that are not a result's: subject, headers.
const BESIDES: usize = 64 << 10;

fn unexpected(e: impl std::fmt::Display) -> QueueError {
    QueueError::Unexpected(e.to_string())
}

fn contended<T>() -> Result<T, QueueError> {
    Err(QueueError::Unavailable("others were always faster".into()))
}

fn failed(e: impl std::fmt::Display) -> QueueError {
    QueueError::Unavailable(e.to_string())
}

/// A queue on JetStream.
///
/// Each operation is a task of its own. Callers keep many of them in one set of futures, which rests while they wait for another operation; one
/// that rests with a lock of ours would hold that other one up for ever.
pub struct NatsQueue(Arc<Inner>);

struct Inner {
    url: String,
    names: Names,
    options: QueueOptions,
    tally: Tally,
    room: Room,
    link: Mutex<Option<Arc<Link>>>,
    /// Locked while a connection is made.
    linking: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for NatsQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL knows the password.
        f.debug_struct("NatsQueue").field("stream", &self.0.names.stream).finish_non_exhaustive()
    }
}

impl NatsQueue {
    /// A queue at `nats://[user:password@]host[:port]`, `nats://token@host`, or with `tls://`; several servers separated by commas. Nothing
    /// is connected yet: a server that is down is no reason not to serve.
    ///
    /// # Errors
    /// When the URL is none of NATS.
    pub fn new(url: &str, options: QueueOptions) -> Result<Self, QueueError> {
        url.split(',').try_for_each(|one| one.parse::<async_nats::ServerAddr>().map(drop)).map_err(unexpected)?;
        let names = Names::new(&options.prefix, &options.name);
        let (link, linking) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self(Arc::new(Inner {
            url: url.to_owned(),
            names,
            options,
            tally: Tally::new(),
            room: Room::default(),
            link,
            linking,
        })))
    }

    /// Carries a step out.
    async fn with<T: Send + 'static, F: Future<Output = Result<T, QueueError>> + Send>(
        &self,
        operation: &'static str,
        step: impl FnOnce(Arc<Inner>, Arc<Link>) -> F + Send + 'static,
    ) -> Result<T, QueueError> {
        let span = || {
            let system = "nats";
            slipway_telemetry::span!(
                "nats",
                otel.kind = "client",
                db.system.name = system,
                db.operation.name = operation
            )
        };
        let inner = Arc::clone(&self.0);
        let task = tokio::spawn(async move { inner.carry_out(step).await });
        slipway_telemetry::run_in_child_span(span, async { task.await.map_err(failed)? }).await
    }
}

impl Inner {
    fn linked(&self) -> std::sync::MutexGuard<'_, Option<Arc<Link>>> {
        // A handle is whole whoever panicked.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection, with the stream and its consumers.
    async fn link(&self) -> Result<Arc<Link>, QueueError> {
        let known = || match self.linked().clone() {
            Some(link) if link.up() => Some(Ok(link)),
            Some(_) => Some(Err(QueueError::Unavailable("the connection to NATS is down; it is made again".into()))),
            None => None,
        };
        if let Some(known) = known() {
            return known;
        }
        let _linking = self.linking.lock().await;
        if let Some(known) = known() {
            return known;
        }
        let link = Arc::new(Link::open(&self.url, &self.names, &self.options).await?);
        *self.linked() = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Carries a step out; after a failure of a server that answers, the stream is looked for again, as it may have come back empty.
    async fn carry_out<T, F: Future<Output = Result<T, QueueError>>>(
        self: Arc<Self>,
        step: impl FnOnce(Arc<Self>, Arc<Link>) -> F,
    ) -> Result<T, QueueError> {
        let link = self.link().await?;
        let step = step(Arc::clone(&self), Arc::clone(&link));
        let answer = match tokio::time::timeout(ANSWER * 2, step).await {
            Ok(answer) => answer,
            Err(late) => Err(failed(late)),
        };
        let amiss = matches!(answer, Err(QueueError::Unavailable(_) | QueueError::Unexpected(_)));
        if amiss && link.up() {
            *self.linked() = None;
        }
        answer
    }
}

impl Queue for NatsQueue {
    fn options(&self) -> &QueueOptions {
        &self.0.options
    }

    fn largest(&self) -> Option<usize> {
        let link = self.0.linked().clone()?;
        Some(link.client.max_payload().saturating_sub(BESIDES))
    }

    async fn enqueue(&self, job: &Job, max_jobs: u64) -> Result<Enqueued, QueueError> {
        let job = job.clone();
        self.with("enqueue", move |inner, link| async move { inner.add(&link, &job, max_jobs).await }).await
    }

    async fn claim(&self, _consumer: &str, most: usize, lowest_first: bool) -> Result<Vec<Claimed>, QueueError> {
        self.with("claim", move |inner, link| async move {
            let mut all = Vec::new();
            let mut order = Priority::ALL;
            if lowest_first {
                order.reverse();
            }
            for priority in order {
                let left = most.saturating_sub(all.len());
                if left == 0 {
                    break;
                }
                match link.take(&inner.names, &inner.options, priority, left).await {
                    Ok(taken) => {
                        for delivery in taken {
                            all.push(inner.claimed(&link, priority, delivery).await);
                        }
                    }
                    Err(error) if all.is_empty() => return Err(error),
                    // What was taken is not to wait until its lease runs out.
                    Err(_) => break,
                }
            }
            Ok(all)
        })
        .await
    }

    async fn reclaim(&self, _consumer: &str) -> Result<Option<Claimed>, QueueError> {
        // The server hands out again what was lost, among what is claimed.
        Ok(None)
    }

    async fn start(&self, lease: &Lease, job: &Job, deliveries: u32, _bytes: usize) -> Result<Start, QueueError> {
        let (lease, job) = (lease.clone(), job.clone());
        self.with("start", move |inner, link| async move { inner.begin(&link, &lease, &job, deliveries).await }).await
    }

    async fn extend(&self, _consumer: &str, leases: &[Lease]) -> Result<(), QueueError> {
        let leases = leases.to_vec();
        self.with("extend", move |_, link| async move {
            let all = leases.iter().map(|lease| store::settle(&link.client, &lease.token, "+WPI"));
            futures::future::try_join_all(all).await.map(drop)
        })
        .await
    }

    async fn finish(&self, lease: &Lease, end: &End) -> Result<bool, QueueError> {
        let (lease, end) = (lease.clone(), end.clone());
        self.with("finish", move |inner, link| async move { inner.end(&link, &lease, &end).await }).await
    }

    async fn retry(&self, _consumer: &str, lease: &Lease, again: &Again) -> Result<bool, QueueError> {
        let (lease, again) = (lease.clone(), again.clone());
        self.with("retry", move |inner, link| async move { inner.give_back(&link, &lease, &again).await }).await
    }

    async fn leave(&self, _consumer: &str) -> Result<(), QueueError> {
        self.with("leave", move |inner, link| async move {
            inner.tally.fold(&link, &inner.names, now_millis(), SILENT_MS).await
        })
        .await
    }

    async fn view(&self, id: &str) -> Result<Option<View>, QueueError> {
        let id = id.to_owned();
        self.with("view", move |inner, link| async move { Ok(inner.doc(&link, &id).await?.1.map(|doc| doc.view())) })
            .await
    }

    async fn cancel(&self, id: &str) -> Result<Option<Status>, QueueError> {
        let id = id.to_owned();
        self.with("cancel", move |inner, link| async move { inner.withdraw(&link, &id).await }).await
    }

    async fn lag(&self) -> Result<Lag, QueueError> {
        self.with("lag", move |inner, link| async move { inner.measure(&link).await }).await
    }

    async fn callbacks(&self, most: usize, lease: Duration) -> Result<Vec<Due>, QueueError> {
        self.with("callbacks", move |inner, link| async move {
            let mut all = Vec::new();
            for delivery in link.take_calls(&inner.names, most, lease).await? {
                match inner.due(&link, delivery).await {
                    Ok(due) => all.extend(due),
                    Err(error) if all.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(all)
        })
        .await
    }

    async fn called(&self, due: &Due, what: &Called) -> Result<bool, QueueError> {
        let (due, what) = (due.clone(), what.clone());
        self.with("called", move |inner, link| async move { inner.settle_call(&link, &due, &what).await }).await
    }
}

/// The lease of a delivery. What is no id, in the name that a producer chose, is as good as none.
fn lease(priority: Priority, delivery: &link::Delivery) -> Lease {
    let entry = format!("{}-{}", delivery.written, delivery.sequence);
    let id = if valid_id(&delivery.name) { delivery.name.clone() } else { entry_id(priority, &entry) };
    Lease { id, priority, entry, token: delivery.token.clone() }
}
