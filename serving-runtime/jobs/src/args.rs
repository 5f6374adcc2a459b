//! Command-line options of the queue, for servers and workers.

use std::time::Duration;

use clap::Args;
use secrecy::SecretString;
use slipway_chassis::backoff::{Backoff, Jitter};
use slipway_contracts::environment;
use slipway_egress::AllowRule;
use slipway_runtime_queue::queue::QueueOptions;

/// Limits of callbacks.
#[derive(Debug, Clone, Copy)]
pub struct CallbackOptions {
    /// Time limit for one attempt, from the name resolution to the head of the response.
    pub timeout: Duration,
    /// Largest number of attempts.
    pub attempts: u32,
    /// Time since the first attempt after which there are no more attempts.
    pub age: Duration,
    /// Time between attempts.
    pub backoff: Backoff,
}

/// Options of servers and workers.
#[derive(Debug, Clone, Args)]
pub struct QueueArgs {
    /// The queue of jobs: `redis://[user:password@]host[:port][/db]`, or `rediss://` for TLS; or
    /// on NATS JetStream, `nats://[user:password@]host[:port]`, or `tls://`. Without it there are
    /// no jobs.
    #[arg(long, env = environment::QUEUE_URL, hide_env_values = true)]
    pub queue_url: Option<SecretString>,
    /// Name of the queue. Default: the ModelDeployment's name, or else the model's.
    #[arg(long, env = environment::QUEUE_NAME, value_parser = queue_name)]
    pub queue_name: Option<String>,
    /// First part of all keys.
    #[arg(long, default_value = "slipway", value_parser = queue_name)]
    pub queue_prefix: String,
    /// Servers that keep the queue, when it is on JetStream and its stream is made by us.
    #[arg(long, env = environment::QUEUE_REPLICAS, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=5))]
    pub queue_replicas: u8,
    /// Jobs that may be queued or running before others are refused with 429.
    #[arg(long, env = environment::QUEUE_MAX_JOBS, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub queue_max_jobs: u64,
    /// Total bytes of the requests of jobs that may be queued or running; further jobs are
    /// rejected with 429.
    #[arg(long, default_value_t = 256 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub queue_max_bytes: u64,
    /// Largest job in bytes.
    #[arg(long, default_value_t = 1 << 20)]
    pub max_job_bytes: usize,
    /// Seconds without a sign of life after which a worker counts as dead and its jobs are given
    /// to other workers.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub job_lease_seconds: u64,
    /// How often a job is handed out before it goes to the dead-letter stream.
    #[arg(long, env = environment::JOB_MAX_DELIVERIES, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub job_max_deliveries: u32,
    /// How long results can be read.
    #[arg(long, env = environment::JOB_RESULT_TTL_SECONDS, default_value_t = 24 * 3600, value_parser = clap::value_parser!(u64).range(1..=2_592_000))]
    pub job_result_ttl_seconds: u64,
    /// Where callbacks may go, separated by commas: host names, `.suffix`, networks, or `*` for
    /// any public address. Default: nowhere.
    #[arg(long, env = environment::CALLBACK_ALLOW, value_delimiter = ',')]
    pub callback_allow: Vec<AllowRule>,
    /// Seconds for which a callback is retried.
    #[arg(long, default_value_t = 24 * 3600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub callback_max_age_seconds: u64,
}

fn queue_name(text: &str) -> Result<String, String> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'/');
    let valid = (1..=256).contains(&text.len()) && text.bytes().all(fits);
    valid
        .then(|| text.to_owned())
        .ok_or_else(|| "want 1 to 256 of a-z, A-Z, 0-9, - _ . and /".into())
}

impl QueueArgs {
    /// The options of the queue itself; its default name is `own`.
    pub fn options(&self, own: &str) -> QueueOptions {
        QueueOptions {
            prefix: self.queue_prefix.clone(),
            name: self.queue_name.as_deref().unwrap_or(own).to_owned(),
            max_entries: self.queue_max_jobs,
            max_bytes: self.queue_max_bytes,
            lease: Duration::from_secs(self.job_lease_seconds),
            max_deliveries: self.job_max_deliveries,
            result_ttl: Duration::from_secs(self.job_result_ttl_seconds),
            callback_age: Duration::from_secs(self.callback_max_age_seconds),
            replicas: usize::from(self.queue_replicas),
        }
    }
}

/// Options of workers.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Jobs that are taken at once; their rows are merged into batches.
    #[arg(long, env = environment::WORKER_MAX_JOBS, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub max_jobs: u16,
    /// Time limit in seconds for one attempt at a job.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub job_timeout_seconds: u64,
    /// Largest result in bytes.
    #[arg(long, default_value_t = 4 << 20)]
    pub max_result_bytes: usize,
    /// After SIGTERM: how long to go on with what was taken before it is given back.
    #[arg(long, env = environment::WORKER_DRAIN_SECONDS, default_value_t = 15)]
    pub worker_drain_seconds: u64,
    /// What callbacks are signed with: `whsec_<base64>`, or another text of at least 16 bytes.
    /// Several, separated by spaces, for a rotation.
    #[arg(long, env = environment::CALLBACK_SIGNING_KEY, hide_env_values = true)]
    pub callback_signing_key: Option<SecretString>,
    /// Time for one attempt at a callback.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300))]
    pub callback_timeout_seconds: u64,
    /// Largest number of attempts at a callback.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub callback_attempts: u32,
    /// Upper bound of the first delay between attempts in milliseconds; it doubles each time up to
    /// an hour, and the actual delay is random below it.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=3_600_000))]
    pub callback_backoff_millis: u64,
}

impl WorkerArgs {
    /// The options of callbacks for the results of `queue`.
    pub fn callback_options(&self, queue: &QueueArgs) -> CallbackOptions {
        CallbackOptions {
            timeout: Duration::from_secs(self.callback_timeout_seconds),
            attempts: self.callback_attempts,
            age: Duration::from_secs(queue.callback_max_age_seconds),
            backoff: Backoff {
                initial: Duration::from_millis(self.callback_backoff_millis),
                max: Duration::from_secs(3600),
                jitter: Jitter::Full,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Options {
        #[command(flatten)]
        queue: QueueArgs,
        #[command(flatten)]
        worker: WorkerArgs,
    }

    #[test]
    fn passwords_and_keys_are_never_printed() {
        let options = Options::parse_from([
            "worker",
            "--queue-url=redis://:hidden@host",
            "--callback-signing-key=hidden-key-of-16-bytes",
        ]);
        assert!(options.queue.queue_url.is_some() && options.worker.callback_signing_key.is_some());
        assert!(!format!("{options:?}").contains("hidden"));
    }
}
