//! The queue on JetStream: one task per operation, over one connection.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use secrecy::{ExposeSecret as _, SecretString};
use slipway_chassis::telemetry;
use slipway_runtime_common::clock::now_millis;
use slipway_runtime_queue::job::{JobPriority, QueuedJob};
use slipway_runtime_queue::queue::{
    CallbackOutcome, ClaimedJob, DueCallback, EnqueueOutcome, JobCompletion, JobLease, JobQueue,
    JobStatus, QueueError, QueueLag, QueueOptions, RetryRequest, StartDecision, StoredJob,
};

use crate::capacity::CapacityEstimate;
use crate::connection::JetStreamConnection;
use crate::counters::CounterLedger;
use crate::errors::{unavailable_error, unexpected_error};
use crate::limits::{MESSAGE_OVERHEAD, RESPONSE_TIMEOUT, SILENT_PROCESS_MS};
use crate::store;
use crate::subjects::QueueSubjects;

/// A queue on JetStream.
///
/// Each operation is a task of its own. Callers keep many operations in one set of futures and may
/// not poll some of them while they wait for another operation; an unpolled future that held one of
/// this queue's locks would block that operation indefinitely.
pub struct NatsQueue(Arc<NatsQueueInner>);

pub(crate) struct NatsQueueInner {
    /// It may hold a password.
    url: SecretString,
    pub(crate) subjects: QueueSubjects,
    pub(crate) options: QueueOptions,
    pub(crate) counters: CounterLedger,
    pub(crate) capacity: CapacityEstimate,
    connection: Mutex<Option<Arc<JetStreamConnection>>>,
    /// Locked while a connection is made.
    connect_lock: tokio::sync::Mutex<()>,
}

impl std::fmt::Debug for NatsQueue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The URL contains the password.
        f.debug_struct("NatsQueue").field("stream", &self.0.subjects.stream).finish_non_exhaustive()
    }
}

impl NatsQueue {
    /// A queue at `nats://[user:password@]host[:port]`, `nats://token@host`, or with `tls://`;
    /// several servers separated by commas. Does not connect yet: a server that is down must not
    /// prevent this program from serving.
    ///
    /// # Errors
    /// When the URL is not a NATS URL.
    pub fn new(url: &str, options: QueueOptions) -> Result<Self, QueueError> {
        url.split(',')
            .try_for_each(|one| one.parse::<async_nats::ServerAddr>().map(drop))
            .map_err(unexpected_error)?;
        let names = QueueSubjects::new(&options.prefix, &options.name);
        let (link, linking) = (Mutex::default(), tokio::sync::Mutex::default());
        Ok(Self(Arc::new(NatsQueueInner {
            url: url.into(),
            subjects: names,
            options,
            counters: CounterLedger::new(),
            capacity: CapacityEstimate::default(),
            connection: link,
            connect_lock: linking,
        })))
    }

    /// Runs an operation in its own task.
    async fn spawn_operation<
        T: Send + 'static,
        F: Future<Output = Result<T, QueueError>> + Send,
    >(
        &self,
        operation: &'static str,
        step: impl FnOnce(Arc<NatsQueueInner>, Arc<JetStreamConnection>) -> F + Send + 'static,
    ) -> Result<T, QueueError> {
        let span = || {
            let system = "nats";
            slipway_chassis::span!(
                "nats",
                otel.kind = "client",
                db.system.name = system,
                db.operation.name = operation
            )
        };
        let inner = Arc::clone(&self.0);
        let task = tokio::spawn(async move { inner.run_operation(step).await });
        telemetry::run_in_child_span(span, async { task.await.map_err(unavailable_error)? }).await
    }
}

impl NatsQueueInner {
    /// The connection, with the stream and its consumers.
    async fn connect(&self) -> Result<Arc<JetStreamConnection>, QueueError> {
        let known = || match self.connection.lock().clone() {
            Some(link) if link.is_connected() => Some(Ok(link)),
            Some(_) => Some(Err(QueueError::Unavailable(
                "the connection to NATS is down; it is made again".into(),
            ))),
            None => None,
        };
        if let Some(known) = known() {
            return known;
        }
        let _linking = self.connect_lock.lock().await;
        if let Some(known) = known() {
            return known;
        }
        let link = Arc::new(
            JetStreamConnection::open(self.url.expose_secret(), &self.subjects, &self.options)
                .await?,
        );
        *self.connection.lock() = Some(Arc::clone(&link));
        Ok(link)
    }

    /// Runs an operation. After a failure while the server is connected, the connection is opened
    /// again, because the stream may have been lost.
    async fn run_operation<T, F: Future<Output = Result<T, QueueError>>>(
        self: Arc<Self>,
        step: impl FnOnce(Arc<Self>, Arc<JetStreamConnection>) -> F,
    ) -> Result<T, QueueError> {
        let link = self.connect().await?;
        let step = step(Arc::clone(&self), Arc::clone(&link));
        let answer = match tokio::time::timeout(RESPONSE_TIMEOUT * 2, step).await {
            Ok(answer) => answer,
            Err(late) => Err(unavailable_error(late)),
        };
        let amiss = matches!(answer, Err(QueueError::Unavailable(_) | QueueError::Unexpected(_)));
        if amiss && link.is_connected() {
            *self.connection.lock() = None;
        }
        answer
    }
}

impl JobQueue for NatsQueue {
    fn options(&self) -> &QueueOptions {
        &self.0.options
    }

    fn max_result_bytes(&self) -> Option<usize> {
        let link = self.0.connection.lock().clone()?;
        Some(link.client.max_payload().saturating_sub(MESSAGE_OVERHEAD))
    }

    async fn enqueue(&self, job: &QueuedJob, max_jobs: u64) -> Result<EnqueueOutcome, QueueError> {
        let job = job.clone();
        self.spawn_operation("enqueue", move |inner, link| async move {
            inner.enqueue_job(&link, &job, max_jobs).await
        })
        .await
    }

    async fn claim(
        &self,
        _consumer: &str,
        most: usize,
        lowest_first: bool,
    ) -> Result<Vec<ClaimedJob>, QueueError> {
        self.spawn_operation("claim", move |inner, link| async move {
            let mut all = Vec::new();
            let mut order = JobPriority::ALL;
            if lowest_first {
                order.reverse();
            }
            for priority in order {
                let left = most.saturating_sub(all.len());
                if left == 0 {
                    break;
                }
                match link.fetch_entries(&inner.subjects, &inner.options, priority, left).await {
                    Ok(taken) => {
                        for delivery in taken {
                            all.push(inner.claimed_job(&link, priority, delivery).await);
                        }
                    }
                    Err(error) if all.is_empty() => return Err(error),
                    // Jobs that were already taken are returned now, so that they need not wait
                    // until their lease expires.
                    Err(_) => break,
                }
            }
            Ok(all)
        })
        .await
    }

    async fn reclaim(&self, _consumer: &str) -> Result<Option<ClaimedJob>, QueueError> {
        // The server delivers lost entries again, and `claim` returns them.
        Ok(None)
    }

    async fn start(
        &self,
        lease: &JobLease,
        job: &QueuedJob,
        deliveries: u32,
        _bytes: usize,
    ) -> Result<StartDecision, QueueError> {
        let (lease, job) = (lease.clone(), job.clone());
        self.spawn_operation("start", move |inner, link| async move {
            inner.start_job(&link, &lease, &job, deliveries).await
        })
        .await
    }

    async fn extend(&self, _consumer: &str, leases: &[JobLease]) -> Result<(), QueueError> {
        let leases = leases.to_vec();
        self.spawn_operation("extend", move |_, link| async move {
            let all = leases
                .iter()
                .map(|lease| store::acknowledge_delivery(&link.client, &lease.token, "+WPI"));
            futures::future::try_join_all(all).await.map(drop)
        })
        .await
    }

    async fn finish(&self, lease: &JobLease, end: &JobCompletion) -> Result<bool, QueueError> {
        let (lease, end) = (lease.clone(), end.clone());
        self.spawn_operation("finish", move |inner, link| async move {
            inner.finish_job(&link, &lease, &end).await
        })
        .await
    }

    async fn retry(
        &self,
        _consumer: &str,
        lease: &JobLease,
        again: &RetryRequest,
    ) -> Result<bool, QueueError> {
        let (lease, again) = (lease.clone(), again.clone());
        self.spawn_operation("retry", move |inner, link| async move {
            inner.retry_job(&link, &lease, &again).await
        })
        .await
    }

    async fn leave(&self, _consumer: &str) -> Result<(), QueueError> {
        self.spawn_operation("leave", move |inner, link| async move {
            inner
                .counters
                .fold_departed(&link, &inner.subjects, now_millis(), SILENT_PROCESS_MS)
                .await
        })
        .await
    }

    async fn get_job(&self, id: &str) -> Result<Option<StoredJob>, QueueError> {
        let id = id.to_owned();
        self.spawn_operation("view", move |inner, link| async move {
            Ok(inner.read_job(&link, &id).await?.1.map(|doc| doc.to_stored_job()))
        })
        .await
    }

    async fn cancel(&self, id: &str) -> Result<Option<JobStatus>, QueueError> {
        let id = id.to_owned();
        self.spawn_operation("cancel", move |inner, link| async move {
            inner.cancel_job(&link, &id).await
        })
        .await
    }

    async fn lag(&self) -> Result<QueueLag, QueueError> {
        self.spawn_operation(
            "lag",
            move |inner, link| async move { inner.measure_lag(&link).await },
        )
        .await
    }

    async fn claim_callbacks(
        &self,
        most: usize,
        lease: Duration,
    ) -> Result<Vec<DueCallback>, QueueError> {
        self.spawn_operation("callbacks", move |inner, link| async move {
            let mut all = Vec::new();
            for delivery in link.fetch_callbacks(&inner.subjects, most, lease).await? {
                match inner.begin_callback(&link, delivery).await {
                    Ok(due) => all.extend(due),
                    Err(error) if all.is_empty() => return Err(error),
                    Err(_) => break,
                }
            }
            Ok(all)
        })
        .await
    }

    async fn record_callback(
        &self,
        due: &DueCallback,
        what: &CallbackOutcome,
    ) -> Result<bool, QueueError> {
        let (due, what) = (due.clone(), what.clone());
        self.spawn_operation("called", move |inner, link| async move {
            inner.record_callback(&link, &due, &what).await
        })
        .await
    }
}
