//! One connection, the stream that stores everything of one queue, and the consumers that deliver
//! its entries.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, Info};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType, Stream};
use async_nats::{Client, ConnectOptions, jetstream};
use futures::StreamExt as _;
use futures::future::try_join_all;
use slipway_runtime_queue::job::JobPriority;
use slipway_runtime_queue::queue::{QueueError, QueueOptions};
use tokio::sync::{Mutex, OnceCell};

use crate::errors::{unavailable_error, unexpected_error};
use crate::limits::RESPONSE_TIMEOUT;
use crate::subjects::QueueSubjects;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Delay between attempts to reconnect.
const RECONNECT_DELAY: Duration = Duration::from_millis(250);
/// JetStream takes 0 for half a minute.
const MIN_LEASE: Duration = Duration::from_millis(10);

/// A consumer whose entries are pulled.
pub(crate) type PullConsumer = Consumer<ConsumerConfig>;

/// A connection whose stream exists.
#[derive(Debug)]
pub(crate) struct JetStreamConnection {
    pub(crate) client: Client,
    pub(crate) stream: Stream,
    /// The consumers as created on connecting, used to query how many entries wait.
    lag_consumers: Vec<PullConsumer>,
    /// One consumer per priority, with this worker's lease.
    work_consumers: OnceCell<Vec<PullConsumer>>,
    /// The consumer of callbacks, with the lease of an attempt.
    callback_consumer: Mutex<Option<(Duration, PullConsumer)>>,
}

/// An entry that was delivered.
#[derive(Debug)]
pub(crate) struct EntryDelivery {
    /// Last part of its subject.
    pub(crate) name: String,
    /// Its number in the stream.
    pub(crate) sequence: u64,
    /// Milliseconds since 1970, by the server's clock.
    pub(crate) written_at: u64,
    /// Number of deliveries, including this one.
    pub(crate) delivery_count: u64,
    /// Where to acknowledge it; different for each delivery.
    pub(crate) token: String,
    pub(crate) payload: Vec<u8>,
}

impl JetStreamConnection {
    /// Connects, and creates what is missing. An existing stream is not changed: replicas,
    /// placement and limits are decisions of the administrator.
    pub(crate) async fn open(
        url: &str,
        names: &QueueSubjects,
        options: &QueueOptions,
    ) -> Result<Self, QueueError> {
        let connect = ConnectOptions::new()
            .connection_timeout(CONNECT_TIMEOUT)
            .request_timeout(Some(RESPONSE_TIMEOUT))
            .reconnect_delay_callback(|_| RECONNECT_DELAY)
            .name("slipway");
        let client = connect.connect(url).await.map_err(unavailable_error)?;
        if !client.is_server_compatible(2, 12, 0) {
            let version = client.server_info().version;
            return Err(unexpected_error(format!(
                "a NATS server of version {version}; 2.12 or newer is needed"
            )));
        }
        let context = jetstream::new(client.clone());
        let stream = context
            .get_or_create_stream(stream_config(names, options))
            .await
            .map_err(unavailable_error)?;
        let config = &stream.cached_info().config;
        let fits = config.allow_atomic_publish
            && config.allow_message_ttl
            && config.max_messages_per_subject == 1;
        if !fits || config.retention != RetentionPolicy::WorkQueue {
            return Err(unexpected_error(format!(
                "a stream {} that was not made by us; want retention workqueue, one message per subject, atomic batches and TTLs of messages",
                names.stream
            )));
        }
        let all = JobPriority::ALL
            .iter()
            .map(|p| work_config(names, *p, options.lease))
            .chain([calls_config(names, RESPONSE_TIMEOUT)]);
        let make =
            all.map(|config| {
                let name = config.durable_name.clone().unwrap_or_default();
                let stream = &stream;
                async move {
                    stream.get_or_create_consumer(&name, config).await.map_err(unavailable_error)
                }
            });
        let known = try_join_all(make).await?;
        Ok(Self {
            client,
            stream,
            lag_consumers: known,
            work_consumers: OnceCell::new(),
            callback_consumer: Mutex::default(),
        })
    }

    /// Whether the server is connected: requests to a disconnected server would wait until they
    /// time out.
    pub(crate) fn is_connected(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Takes entries of a priority that no worker holds.
    pub(crate) async fn fetch_entries(
        &self,
        names: &QueueSubjects,
        options: &QueueOptions,
        priority: JobPriority,
        most: usize,
    ) -> Result<Vec<EntryDelivery>, QueueError> {
        let make = || async {
            let all = JobPriority::ALL
                .iter()
                .map(|p| self.stream.create_consumer(work_config(names, *p, options.lease)));
            try_join_all(all).await.map_err(unavailable_error)
        };
        let consumers = self.work_consumers.get_or_try_init(make).await?;
        let at = JobPriority::ALL.iter().position(|p| *p == priority).unwrap_or_default();
        match consumers.get(at) {
            Some(consumer) => fetch_deliveries(consumer, most).await,
            None => Ok(Vec::new()),
        }
    }

    /// Takes callbacks that are due.
    pub(crate) async fn fetch_callbacks(
        &self,
        names: &QueueSubjects,
        most: usize,
        lease: Duration,
    ) -> Result<Vec<EntryDelivery>, QueueError> {
        let mut calls = self.callback_consumer.lock().await;
        let consumer = match calls.take() {
            Some((of, consumer)) if of == lease => consumer,
            _ => self
                .stream
                .create_consumer(calls_config(names, lease))
                .await
                .map_err(unavailable_error)?,
        };
        let (_, consumer) = calls.insert((lease, consumer));
        fetch_deliveries(consumer, most).await
    }

    /// How many entries wait and are held: per priority, and for the callbacks last.
    pub(crate) async fn consumer_infos(&self) -> Result<Vec<Info>, QueueError> {
        try_join_all(
            self.lag_consumers
                .iter()
                .map(|c| async { c.get_info().await.map_err(unavailable_error) }),
        )
        .await
    }
}

fn stream_config(names: &QueueSubjects, options: &QueueOptions) -> Config {
    Config {
        name: names.stream.clone(),
        subjects: vec![names.all_subjects()],
        // An acknowledged entry is deleted; subjects without a consumer, such as the jobs
        // themselves, stay.
        retention: RetentionPolicy::WorkQueue,
        max_messages_per_subject: 1,
        storage: StorageType::File,
        num_replicas: options.replicas,
        allow_direct: true,
        allow_message_ttl: true,
        allow_atomic_publish: true,
        description: Some(
            "A queue of Slipway: jobs, their entries, results, callbacks and counters".into(),
        ),
        ..Config::default()
    }
}

fn consumer_config(name: &str, filter: String, lease: Duration) -> ConsumerConfig {
    ConsumerConfig {
        durable_name: Some(name.to_owned()),
        filter_subject: filter,
        ack_policy: AckPolicy::Explicit,
        ack_wait: lease.max(MIN_LEASE),
        // This program counts deliveries itself; the server must never give up an accepted job.
        max_deliver: -1,
        max_ack_pending: -1,
        ..ConsumerConfig::default()
    }
}

fn work_config(names: &QueueSubjects, priority: JobPriority, lease: Duration) -> ConsumerConfig {
    consumer_config(priority.name(), names.entries(priority), lease)
}

fn calls_config(names: &QueueSubjects, lease: Duration) -> ConsumerConfig {
    consumer_config("calls", names.callbacks(), lease)
}

async fn fetch_deliveries(
    consumer: &PullConsumer,
    most: usize,
) -> Result<Vec<EntryDelivery>, QueueError> {
    let mut messages =
        consumer.fetch().max_messages(most).messages().await.map_err(unavailable_error)?;
    let mut all = Vec::new();
    // A server that disconnects meanwhile sends no error; messages received until then are used.
    while let Ok(Some(message)) = tokio::time::timeout(CONNECT_TIMEOUT, messages.next()).await {
        let message = match message {
            Ok(message) => message,
            Err(error) if all.is_empty() => return Err(unavailable_error(error)),
            Err(_) => break,
        };
        let info = message.info().map_err(unexpected_error)?;
        let (sequence, delivered) =
            (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1));
        let written = nanos_to_millis(info.published.unix_timestamp_nanos());
        let name = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
        let token = message.reply.as_ref().map(ToString::to_string).unwrap_or_default();
        all.push(EntryDelivery {
            name,
            sequence,
            written_at: written,
            delivery_count: delivered,
            token,
            payload: message.payload.to_vec(),
        });
    }
    Ok(all)
}

/// Converts nanoseconds since 1970 to milliseconds.
pub(crate) fn nanos_to_millis(nanos: i128) -> u64 {
    u64::try_from(nanos / 1_000_000).unwrap_or_default()
}
