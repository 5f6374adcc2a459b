//! Options of the command line, and what the operator passes in the environment.

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

/// The model server of Slipway: serves an ONNX model by the Open Inference Protocol v2, by REST and
/// gRPC.
#[derive(Debug, Parser)]
#[command(name = "slipway-runtime", version)]
pub struct RuntimeCli {
    /// What to do.
    #[command(subcommand)]
    pub command: RuntimeCommand,
}

/// What the program can do.
#[derive(Debug, Subcommand)]
pub enum RuntimeCommand {
    /// Fetch the model, verify it and tell its digest, and end: what a pod does before it serves.
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
    /// Where the optimised graph of the pod's own model is kept, for its other workers and for
    /// restarts; a directory that nobody else can write.
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

    /// Connections to the inference API at one time. Beyond it, those that idle make room, the
    /// silent ones and those of the largest peer first.
    #[arg(long, env = "SLIPWAY_MAX_CONNECTIONS", default_value_t = 10_000, value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_connections: usize,

    /// Largest model that is loaded, in bytes.
    #[arg(long, default_value_t = 4 << 30)]
    pub max_model_bytes: u64,
    /// Time for the whole download, attempts included.
    #[arg(long, default_value_t = 600)]
    pub download_timeout_seconds: u64,
    /// Attempts at a download.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=20))]
    pub download_attempts: u32,

    /// Threads that run the model, each with its own session. Default: the CPU quota of the
    /// cgroup, rounded down.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub workers: Option<u16>,
    /// Memory that sessions of the model may count on, in bytes: no further worker begins that
    /// would take more than three quarters of it. Default: the limit of the cgroup, or what is
    /// free on the machine where that is less.
    #[arg(long, env = "SLIPWAY_MAX_MEMORY_BYTES")]
    pub max_memory_bytes: Option<u64>,
    /// Threads for HTTP. Default: a quarter of the CPU quota.
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub io_threads: Option<u16>,
    /// Threads inside one run of the model. More lowers the latency of large models; then lower
    /// `--workers`.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub intra_op_threads: u16,

    /// Further models.
    #[cfg(feature = "model-repository")]
    #[command(flatten)]
    pub repository: slipway_runtime_repository::args::RepositoryArgs,

    /// Requests that may wait before others are refused with 429.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    pub queue_capacity: u32,
    /// Rows of a merged batch.
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_batch_rows: u32,
    /// Whether requests of different clients may run as one batch. `auto`: where it is proven that
    /// the model keeps rows apart.
    #[arg(long, env = environment::BATCHING, value_enum, default_value_t)]
    pub batching: BatchingMode,
    /// Rows that one request may carry. Default: 4096 where rows are known to be rows (see
    /// `--batching`); other models may take the first axis for the length of a sequence, which
    /// only `--max-body-bytes` bounds.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_request_rows: Option<u32>,
    /// Largest request body in bytes, after decompression, of a request for which
    /// `x-slipway-max-request-bytes` says nothing.
    #[arg(long, default_value_t = 16 << 20)]
    pub max_body_bytes: usize,
    /// Largest size that a request may name; at least that of requests that name none. Slipway's
    /// gateway names `spec.traffic.maxRequestSize`.
    #[arg(long, default_value_t = 128 << 20)]
    pub max_named_body_bytes: usize,
    /// Time for a request that names none by `x-request-timeout-ms` or `grpc-timeout`.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=604_800))]
    pub request_timeout_seconds: u64,
    /// Longest time that a request may name; at least that of requests that name none. Slipway's
    /// gateway names `spec.traffic.timeoutSeconds`.
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
    /// The caches.
    #[command(flatten)]
    pub cache: slipway_runtime_cache::CacheArgs,

    /// After SIGTERM the server serves on until no request has come for so long: everybody has
    /// learned that this pod goes, and has another one.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub drain_delay_seconds: u64,
    /// But at most for so long after SIGTERM, however many requests still come.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(..=86_400))]
    pub drain_serve_seconds: u64,
    /// After that: how long to wait for what is in flight. Default: as long as the requests in
    /// flight may take.
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
    /// How to work.
    #[command(flatten)]
    pub worker: WorkerArgs,
}

fn parse_revision(text: &str) -> Result<String, String> {
    slipway_prediction_id::is_revision(text)
        .then(|| text.to_owned())
        .ok_or_else(|| "want 1 to 16 of a-z and 0-9".into())
}

/// Threads by the CPU quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ThreadCounts {
    /// Threads that run the model.
    pub workers: usize,
    /// Threads for HTTP.
    pub io: usize,
}

impl ServeArgs {
    /// The numbers of threads. The standard library reads the quotas of cgroup v1 and v2 and the
    /// affinity mask, rounded down to at least 1: more threads than quota means throttling, which
    /// ruins the tail of the latency.
    pub fn thread_counts(&self) -> ThreadCounts {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        ThreadCounts {
            workers: self.workers.map_or(cpus, usize::from),
            io: self.io_threads.map_or_else(|| (cpus / 4).max(1), usize::from),
        }
    }

    /// What bounds the fetch of the pod's own model.
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

    /// How models are built.
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

    /// Where the pod's own model is, and how it is built.
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

    /// Whose samples this process takes.
    pub fn sample_origin(&self) -> SampleOrigin {
        SampleOrigin {
            modeldeployment: self.modeldeployment.clone(),
            revision: self.revision.clone(),
            pod_name: self.pod_name.clone(),
        }
    }

    /// Name of the queue of jobs where the options give it none.
    pub fn default_queue_name(&self) -> &str {
        if self.modeldeployment.is_empty() { &self.model_name } else { &self.modeldeployment }
    }

    /// Time for a request that names none.
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

    /// Time for a request that names `named`.
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
