//! Options of the command line and of the environment, which the operator sets.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::RangedU64ValueParser;
use clap::{Args, Parser, Subcommand};
use slipway_contracts::{environment, files, headers, ports};
use slipway_runtime_engine::batching::BatchingMode;
use slipway_runtime_engine::fetch::FetchOptions;
use slipway_runtime_jobs::args::{QueueArgs, WorkerArgs};
use slipway_runtime_predict::load::{BuildOptions, LoadOptions};
use slipway_runtime_predict::repository::ModelRepository;
use slipway_runtime_predict::samples::SampleOrigin;

/// How large a body a request may have: said by the gateway, for the ModelDeployment that it is of.
const MAX_REQUEST_HEADER: &str = headers::MAX_REQUEST_BYTES;

/// The model server of Slipway: serves an ONNX model by the Open Inference Protocol v2, over REST
/// and gRPC.
#[derive(Debug, Parser)]
#[command(name = "slipway-runtime", version)]
pub struct RuntimeCli {
    /// The subcommand.
    #[command(subcommand)]
    pub command: RuntimeCommand,
}

/// The subcommands of the program.
#[derive(Debug, Subcommand)]
pub enum RuntimeCommand {
    /// Fetch the model, verify it, report its digest, and exit: the step before a pod serves.
    Fetch(Box<ServeArgs>),
    /// Load one model and serve it.
    Serve(Box<ServeArgs>),
    /// Try a model within bounds and tell what it costs; the server runs this for models of its
    /// repository.
    #[cfg(feature = "model-repository")]
    Vet(slipway_runtime_repository::sandbox::VetArgs),
    /// Load one model and run the jobs of a queue.
    Worker(Box<WorkerCommand>),
}

/// Options of `serve`.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Name of the ModelDeployment; a label of all metrics.
    #[arg(long, env = environment::MODELDEPLOYMENT, default_value = "")]
    pub modeldeployment: String,
    /// Namespace of the ModelDeployment: what is shared with others, such as a Redis, holds each
    /// namespace's apart.
    #[arg(long, env = environment::NAMESPACE, default_value = "")]
    pub namespace: String,
    /// Revision of this pod: at most 16 of a-z and 0-9. A label of all metrics and part of
    /// prediction ids.
    #[arg(long, env = environment::REVISION, default_value = "local", value_parser = parse_revision)]
    pub revision: String,
    /// Name under which the model is served.
    #[arg(long, env = environment::MODEL_NAME, default_value = "model")]
    pub model_name: String,
    /// Version under which the model is served.
    #[arg(long, env = environment::MODEL_VERSION, default_value = "1")]
    pub model_version: String,
    /// Where the model is: a path, file://, pvc://claim/path, http(s)://, s3://, gs:// or az://.
    #[arg(long, env = environment::MODEL_URI)]
    pub model_uri: String,
    /// `sha256:<hex>` of the model: of its file, or of the list of its files where weights lie
    /// beside it (see docs/protocol.md). Empty when not pinned.
    #[arg(long, env = environment::MODEL_DIGEST, default_value = "")]
    pub model_digest: String,
    /// Where `fetch` notes for `serve` what it has fetched: a file that only this pod can write.
    #[arg(long, env = environment::FETCHED_RECORD)]
    pub fetched_record: Option<PathBuf>,
    /// Name of this pod, for the log.
    #[arg(long, env = environment::POD_NAME, default_value = "")]
    pub pod_name: String,

    /// ONNX Runtime's shared library.
    #[arg(long, env = "ORT_DYLIB_PATH", default_value = "/usr/lib/libonnxruntime.so")]
    pub onnxruntime: PathBuf,
    /// Where downloaded models are kept.
    #[arg(long, env = "SLIPWAY_CACHE_DIR", default_value = files::MODELS_DIRECTORY)]
    pub cache_dir: PathBuf,
    /// Directory of the optimised graph of the pod's own model, which its other workers and later
    /// starts read; only this pod may be able to write it.
    #[arg(long, env = "SLIPWAY_OPTIMISED_DIR")]
    pub optimised_dir: Option<PathBuf>,
    /// Where `pvc://claim/path` is mounted: `<root>/claim/path`.
    #[arg(long, env = "SLIPWAY_VOLUME_ROOT", default_value = files::CLAIMS_DIRECTORY)]
    pub volume_root: PathBuf,
    /// Where the reason of a failed start is written.
    #[arg(long, env = "SLIPWAY_TERMINATION_LOG", default_value = files::TERMINATION_LOG)]
    pub termination_log: PathBuf,

    /// Address of the inference API.
    #[arg(long, default_value_t = ports::HTTP.at_every_address())]
    pub listen: SocketAddr,
    /// Address of metrics and probes.
    #[arg(long, default_value_t = ports::METRICS.at_every_address())]
    pub admin_listen: SocketAddr,

    /// Largest number of connections to the inference API at one time. Beyond it, idle connections
    /// are closed: first silent ones, and those of the peer with the most connections.
    #[arg(long, env = "SLIPWAY_MAX_CONNECTIONS", default_value_t = 10_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_connections: usize,

    /// Largest model that is loaded, in bytes.
    #[arg(long, default_value_t = 4 << 30)]
    pub max_model_bytes: u64,
    /// Time limit in seconds for the whole download, including retries.
    #[arg(long, default_value_t = 600)]
    pub download_timeout_seconds: u64,
    /// Largest number of attempts at a download.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub download_attempts: u32,

    /// Threads that run the model, each with its own session. Default: the CPU quota of the
    /// cgroup, rounded down.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: Option<u16>,
    /// Memory available to the sessions of the model, in bytes: no further worker is started if
    /// the sessions would exceed three quarters of it. Default: the limit of the cgroup, or the
    /// free memory of the machine if that is less.
    #[arg(long, env = "SLIPWAY_MAX_MEMORY_BYTES")]
    pub max_memory_bytes: Option<u64>,
    /// Threads for HTTP. Default: a quarter of the CPU quota.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub io_threads: Option<u16>,
    /// Threads within one run of the model. More threads lower the latency of large models; lower
    /// `--workers` accordingly.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub intra_op_threads: u16,

    /// Further models.
    #[cfg(feature = "model-repository")]
    #[command(flatten)]
    pub repository: slipway_runtime_repository::args::RepositoryArgs,

    /// Requests that may wait; further requests are rejected with 429.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub queue_capacity: u32,
    /// Largest number of rows of a merged batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_batch_rows: u32,
    /// Whether requests of different clients may run as one batch. `auto`: where it is proven that
    /// the model keeps rows apart.
    #[arg(long, env = environment::BATCHING, value_enum, default_value_t)]
    pub batching: BatchingMode,
    /// Largest number of rows of one request. Default: 4096 where the first axis is known to be
    /// one of rows (see `--batching`); in other models it may be the length of a sequence, which
    /// only `--max-body-bytes` limits.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_request_rows: Option<u32>,
    /// Largest request body in bytes, after decompression, for requests without
    /// `x-slipway-max-request-bytes`.
    #[arg(long, default_value_t = 16 << 20)]
    pub max_body_bytes: usize,
    /// Largest body size in bytes that a request's header may allow; at least that of requests
    /// without the header. Slipway's gateway sends `spec.traffic.maxRequestSize`.
    #[arg(long, default_value_t = 128 << 20)]
    pub max_named_body_bytes: usize,
    /// Time limit in seconds for requests without `x-request-timeout-ms` or `grpc-timeout`.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub request_timeout_seconds: u64,
    /// Longest time limit in seconds that a request may name; at least that of requests that name
    /// none. Slipway's gateway sends `spec.traffic.timeoutSeconds`.
    #[arg(long, default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub max_request_timeout_seconds: u64,
    /// UID of the ModelDeployment, for the keys that are its own.
    #[arg(long, env = environment::UID, default_value = "")]
    pub uid: String,
    /// Directory with the files of the Secret `slipway-keys`: `master`, from which prediction ids
    /// of jobs and streams are sealed, and `token`, which those show who ask for more than
    /// predictions. They are read when they are needed, so that they may come later and change.
    /// Without it nobody is asked for a token.
    #[arg(long, env = environment::KEYS_DIRECTORY)]
    pub keys_directory: Option<std::path::PathBuf>,

    /// Baseline and samples.
    #[command(flatten)]
    pub observe: slipway_runtime_predict::observe::args::ObserveArgs,
    /// Result and feature caches.
    #[command(flatten)]
    pub cache: slipway_runtime_cache::CacheArgs,

    /// Seconds without a request after SIGTERM until the server stops. It continues to serve
    /// before that, because clients need time to learn that this pod is terminating.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub drain_delay_seconds: u64,
    /// Longest time in seconds to continue to serve after SIGTERM, even if requests still arrive.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub drain_serve_seconds: u64,
    /// Seconds to wait for requests in flight after that. Default: as long as these requests may
    /// take.
    #[arg(long, value_parser = clap::value_parser!(u64).range(..=604_800))]
    pub drain_timeout_seconds: Option<u64>,

    /// The queue of jobs.
    #[command(flatten)]
    pub queue: QueueArgs,
}

/// Options of `worker`.
#[derive(Debug, Clone, Args)]
pub struct WorkerCommand {
    /// The model, and how to run it.
    #[command(flatten)]
    pub serve: ServeArgs,
    /// How to run jobs.
    #[command(flatten)]
    pub worker: WorkerArgs,
}

fn parse_revision(text: &str) -> Result<String, String> {
    slipway_prediction_id::is_revision(text)
        .then(|| text.to_owned())
        .ok_or_else(|| "want 1 to 16 of a-z and 0-9".into())
}

/// Numbers of threads, derived from the CPU quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadCounts {
    /// Threads that run the model.
    pub workers: usize,
    /// Threads for HTTP.
    pub io: usize,
}

impl ServeArgs {
    /// The numbers of threads. The standard library reads the quotas of cgroup v1 and v2 and the
    /// affinity mask, rounded down to at least 1: with more threads than quota the process is
    /// throttled, which raises the tail latency.
    pub fn thread_counts(&self) -> ThreadCounts {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        ThreadCounts {
            workers: self.workers.map_or(cpus, usize::from),
            io: self.io_threads.map_or_else(|| (cpus / 4).max(1), usize::from),
        }
    }

    /// The limits of fetching the pod's own model.
    pub fn fetch_options(&self) -> FetchOptions {
        FetchOptions {
            cache_dir: self.cache_dir.clone(),
            volume_root: self.volume_root.clone(),
            max_bytes: self.max_model_bytes,
            timeout: Duration::from_secs(self.download_timeout_seconds),
            attempts: self.download_attempts,
            external_data: true,
        }
    }

    pub fn build_options(&self) -> BuildOptions {
        BuildOptions {
            onnxruntime: self.onnxruntime.clone(),
            workers: self.thread_counts().workers,
            intra_op_threads: usize::from(self.intra_op_threads),
            max_memory_bytes: self.max_memory_bytes,
            max_batch_rows: self.max_batch_rows as usize,
            batching: self.batching,
            queue_capacity: self.queue_capacity as usize,
            max_features: usize::from(self.observe.baseline_max_features),
            features: self.observe.baseline_features.clone(),
        }
    }

    /// The location of the pod's own model, and how it is built.
    pub fn load_options(&self) -> LoadOptions {
        LoadOptions {
            name: self.model_name.clone(),
            version: self.model_version.clone(),
            uri: self.model_uri.clone(),
            digest: self.model_digest.clone(),
            fetched_record: self.fetched_record.clone(),
            optimised_dir: self.optimised_dir.clone(),
            baseline: self.observe.baseline.clone(),
            baseline_digest: self.observe.baseline_digest.clone(),
            fetch: self.fetch_options(),
            build: self.build_options(),
        }
    }

    /// The repository of further models, where this build can have one and the options name it.
    pub fn open_repository(&self) -> Option<Arc<dyn ModelRepository>> {
        #[cfg(feature = "model-repository")]
        if let Some(opened) = self.repository.open(self.fetch_options(), self.build_options()) {
            return Some(opened);
        }
        None
    }

    /// The origin of the samples of this process.
    pub fn sample_origin(&self) -> SampleOrigin {
        SampleOrigin {
            modeldeployment: self.modeldeployment.clone(),
            revision: self.revision.clone(),
            pod_name: self.pod_name.clone(),
        }
    }

    /// Name of the queue of jobs if no option sets one.
    pub fn default_queue_name(&self) -> &str {
        if self.modeldeployment.is_empty() { &self.model_name } else { &self.modeldeployment }
    }

    /// Time limit for requests that name none.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(self.request_timeout_seconds)
    }

    /// Largest body of a request with these headers.
    pub fn body_limit(&self, headers: &http::HeaderMap) -> usize {
        let named = headers
            .get(MAX_REQUEST_HEADER)
            .and_then(|value| value.to_str().ok()?.trim().parse().ok());
        named.map_or(self.max_body_bytes, |named: usize| {
            named.min(self.max_named_body_bytes.max(self.max_body_bytes))
        })
    }

    /// Time limit for a request that names `named`.
    pub fn request_time_limit(&self, named: Option<Duration>) -> Duration {
        let default = self.request_timeout();
        named.map_or(default, |named| {
            named.min(default.max(Duration::from_secs(self.max_request_timeout_seconds)))
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        RuntimeCli::command().debug_assert();
    }

    #[test]
    fn what_the_operator_sets_is_read() {
        let command = RuntimeCli::command();
        let servers = environment::MODEL_SERVER.into_iter();
        for (program, names) in [
            ("serve", servers.clone().collect::<Vec<_>>()),
            ("fetch", servers.clone().collect()),
            ("worker", servers.chain(environment::WORKER).collect()),
        ] {
            let command = command.find_subcommand(program).unwrap();
            let read: Vec<_> = command.get_arguments().filter_map(clap::Arg::get_env).collect();
            for name in names {
                assert!(read.iter().any(|it| *it == name), "{program} does not read {name}");
            }
        }
    }

    #[test]
    fn what_templates_may_not_set_are_options() {
        let command = RuntimeCli::command();
        let serve = command.find_subcommand("serve").unwrap();
        for option in environment::FIXED_OPTIONS {
            let name = option.strip_prefix("--");
            assert!(serve.get_arguments().any(|it| it.get_long() == name), "{option}");
        }
    }

    #[test]
    fn threads_are_at_least_one() {
        let cli = RuntimeCli::parse_from(["slipway-runtime", "serve", "--model-uri", "/m"]);
        let RuntimeCommand::Serve(args) = cli.command else { panic!("not serve") };
        assert!(args.thread_counts().workers >= 1 && args.thread_counts().io >= 1);
        assert!(
            RuntimeCli::try_parse_from([
                "slipway-runtime",
                "serve",
                "--model-uri",
                "/m",
                "--revision",
                "Not!"
            ])
            .is_err()
        );
    }
}
