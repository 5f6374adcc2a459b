//! One connection, the stream that keeps everything of one queue, and the consumers that hand its entries out.

use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::consumer::pull::Config as ConsumerConfig;
use async_nats::jetstream::consumer::{AckPolicy, Consumer, Info};
use async_nats::jetstream::stream::{Config, RetentionPolicy, StorageType, Stream};
use async_nats::{Client, ConnectOptions, jetstream};
use futures::StreamExt as _;
use futures::future::try_join_all;
use tokio::sync::{Mutex, OnceCell};

use super::super::job::Priority;
use super::super::queue::{QueueError, QueueOptions};
use super::names::Names;
use super::{ANSWER, failed, unexpected};

const CONNECT: Duration = Duration::from_secs(2);
/// Between attempts to connect again.
const AGAIN: Duration = Duration::from_millis(250);
/// JetStream takes 0 for half a minute.
const SHORTEST_LEASE: Duration = Duration::from_millis(10);

/// A consumer whose entries are pulled.
pub(super) type Pull = Consumer<ConsumerConfig>;

/// What is there when the stream is.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) client: Client,
    pub(super) stream: Stream,
    /// The consumers as they were made first: to be asked how much waits.
    known: Vec<Pull>,
    /// The same, one for each priority, with this worker's lease.
    work: OnceCell<Vec<Pull>>,
    /// The one of the callbacks, with the lease of an attempt.
    calls: Mutex<Option<(Duration, Pull)>>,
}

/// An entry that was handed out.
#[derive(Debug)]
pub(super) struct Delivery {
    /// Last part of its subject.
    pub(super) name: String,
    /// Its number in the stream.
    pub(super) sequence: u64,
    /// Milliseconds since 1970, by the server's clock.
    pub(super) written: u64,
    /// How often it was handed out, this time included.
    pub(super) delivered: u64,
    /// Where to acknowledge it; another one at each delivery.
    pub(super) token: String,
    pub(super) payload: Vec<u8>,
}

impl Link {
    /// Connects, and makes what is missing. What is there already stays as it is: replicas, placement and limits are decisions of who runs it.
    pub(super) async fn open(url: &str, names: &Names, options: &QueueOptions) -> Result<Self, QueueError> {
        let connect = ConnectOptions::new()
            .connection_timeout(CONNECT)
            .request_timeout(Some(ANSWER))
            .reconnect_delay_callback(|_| AGAIN)
            .name("slipway");
        let client = connect.connect(url).await.map_err(failed)?;
        if !client.is_server_compatible(2, 12, 0) {
            let version = client.server_info().version;
            return Err(unexpected(format!("a NATS server of version {version}; 2.12 or newer is needed")));
        }
        let context = jetstream::new(client.clone());
        let stream = context.get_or_create_stream(stream_config(names, options)).await.map_err(failed)?;
        let config = &stream.cached_info().config;
        let fits = config.allow_atomic_publish && config.allow_message_ttl && config.max_messages_per_subject == 1;
        if !fits || config.retention != RetentionPolicy::WorkQueue {
            return Err(unexpected(format!(
                "a stream {} that was not made by us; want retention workqueue, one message per subject, atomic batches and TTLs of messages",
                names.stream
            )));
        }
        let all =
            Priority::ALL.iter().map(|p| work_config(names, *p, options.lease)).chain([calls_config(names, ANSWER)]);
        let make = all.map(|config| {
            let name = config.durable_name.clone().unwrap_or_default();
            let stream = &stream;
            async move { stream.get_or_create_consumer(&name, config).await.map_err(failed) }
        });
        let known = try_join_all(make).await?;
        Ok(Self { client, stream, known, work: OnceCell::new(), calls: Mutex::default() })
    }

    /// Whether the server is there: requests to one that is not would wait for their time to be over.
    pub(super) fn up(&self) -> bool {
        self.client.connection_state() == State::Connected
    }

    /// Takes entries of a priority that nobody holds.
    pub(super) async fn take(
        &self,
        names: &Names,
        options: &QueueOptions,
        priority: Priority,
        most: usize,
    ) -> Result<Vec<Delivery>, QueueError> {
        let make = || async {
            let all = Priority::ALL.iter().map(|p| self.stream.create_consumer(work_config(names, *p, options.lease)));
            try_join_all(all).await.map_err(failed)
        };
        let consumers = self.work.get_or_try_init(make).await?;
        let at = Priority::ALL.iter().position(|p| *p == priority).unwrap_or_default();
        match consumers.get(at) {
            Some(consumer) => fetch(consumer, most).await,
            None => Ok(Vec::new()),
        }
    }

    /// Takes callbacks that are due.
    pub(super) async fn take_calls(
        &self,
        names: &Names,
        most: usize,
        lease: Duration,
    ) -> Result<Vec<Delivery>, QueueError> {
        let mut calls = self.calls.lock().await;
        let consumer = match calls.take() {
            Some((of, consumer)) if of == lease => consumer,
            _ => self.stream.create_consumer(calls_config(names, lease)).await.map_err(failed)?,
        };
        let (_, consumer) = calls.insert((lease, consumer));
        fetch(consumer, most).await
    }

    /// How much waits and is held: of each priority, and of the callbacks at last.
    pub(super) async fn infos(&self) -> Result<Vec<Info>, QueueError> {
        try_join_all(self.known.iter().map(|c| async { c.get_info().await.map_err(failed) })).await
    }
}

fn stream_config(names: &Names, options: &QueueOptions) -> Config {
    Config {
        name: names.stream.clone(),
        subjects: vec![names.all()],
        // An entry that is acknowledged is gone; what no consumer looks at, as the jobs themselves, stays.
        retention: RetentionPolicy::WorkQueue,
        max_messages_per_subject: 1,
        storage: StorageType::File,
        num_replicas: options.replicas,
        allow_direct: true,
        allow_message_ttl: true,
        allow_atomic_publish: true,
        description: Some("A queue of Slipway: jobs, their entries, results, callbacks and counters".into()),
        ..Config::default()
    }
}

fn consumer_config(name: &str, filter: String, lease: Duration) -> ConsumerConfig {
    ConsumerConfig {
        durable_name: Some(name.to_owned()),
        filter_subject: filter,
        ack_policy: AckPolicy::Explicit,
        ack_wait: lease.max(SHORTEST_LEASE),
        // Deliveries are counted by us, and what was accepted is never given up by the server.
        max_deliver: -1,
        max_ack_pending: -1,
        ..ConsumerConfig::default()
    }
}

fn work_config(names: &Names, priority: Priority, lease: Duration) -> ConsumerConfig {
    consumer_config(priority.name(), names.entries(priority), lease)
}

fn calls_config(names: &Names, lease: Duration) -> ConsumerConfig {
    consumer_config("calls", names.calls(), lease)
}

async fn fetch(consumer: &Pull, most: usize) -> Result<Vec<Delivery>, QueueError> {
    let mut messages = consumer.fetch().max_messages(most).messages().await.map_err(failed)?;
    let mut all = Vec::new();
    // A server that goes away meanwhile says nothing; what came until then is ours.
    while let Ok(Some(message)) = tokio::time::timeout(CONNECT, messages.next()).await {
        let message = match message {
            Ok(message) => message,
            Err(error) if all.is_empty() => return Err(failed(error)),
            Err(_) => break,
        };
        let info = message.info().map_err(unexpected)?;
        let (sequence, delivered) = (info.stream_sequence, u64::try_from(info.delivered).unwrap_or(1));
        let written = millis(info.published.unix_timestamp_nanos());
        let name = message.subject.rsplit('.').next().unwrap_or_default().to_owned();
        let token = message.reply.as_ref().map(ToString::to_string).unwrap_or_default();
        all.push(Delivery { name, sequence, written, delivered, token, payload: message.payload.to_vec() });
    }
    Ok(all)
}

/// Milliseconds of nanoseconds since 1970.
pub(super) fn millis(nanos: i128) -> u64 {
    u64::try_from(nanos / 1_000_000).unwrap_or_default()
}
