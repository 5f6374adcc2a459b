//! Environment variables that the operator sets in pods and that gateway and model server read.
//!
//! Every one of them is an option of the program as well; options that the operator does not set
//! are declared by the programs alone. The lists at the end say which program reads what: a test of
//! the builders (`operator/objects`) holds them against what pods get, a test of each program
//! against its options.

/// How the variables of Slipway begin. Pod templates of users may set none.
pub const PREFIX: &str = "SLIPWAY_";

/// Name of the pod, from its metadata.
pub const POD_NAME: &str = "POD_NAME";
/// Namespace of the pod, from its metadata.
pub const POD_NAMESPACE: &str = "POD_NAMESPACE";

/// Namespace of the ModelDeployment.
pub const NAMESPACE: &str = "SLIPWAY_NAMESPACE";
/// Name of the ModelDeployment.
pub const MODELDEPLOYMENT: &str = "SLIPWAY_MODELDEPLOYMENT";
/// Revision that the pod serves.
pub const REVISION: &str = "SLIPWAY_REVISION";
/// UID of the ModelDeployment: keys are derived with it.
pub const UID: &str = "SLIPWAY_UID";
/// Name of the model in the paths of the Open Inference Protocol.
pub const MODEL_NAME: &str = "SLIPWAY_MODEL_NAME";
/// Version of the model in the spec, for people.
pub const MODEL_VERSION: &str = "SLIPWAY_MODEL_VERSION";
/// Where the model file is.
pub const MODEL_URI: &str = "SLIPWAY_MODEL_URI";
/// `sha256:<hex>` of the model; empty until it is known.
pub const MODEL_DIGEST: &str = "SLIPWAY_MODEL_DIGEST";
/// File in which the init container `fetch` notes what it found.
pub const FETCHED_RECORD: &str = "SLIPWAY_FETCHED_RECORD";
/// Folder of the Secret `slipway-keys`.
pub const KEYS_DIRECTORY: &str = "SLIPWAY_KEYS_DIRECTORY";
/// `auto` or `disabled`, where the spec decides.
pub const BATCHING: &str = "SLIPWAY_BATCHING";
/// Where `baseline.json` is.
pub const BASELINE_URI: &str = "SLIPWAY_BASELINE_URI";
/// `sha256:<hex>` of it.
pub const BASELINE_DIGEST: &str = "SLIPWAY_BASELINE_DIGEST";
/// Share of requests that are sampled, from 0 to 1.
pub const SAMPLE_PAYLOADS: &str = "SLIPWAY_SAMPLE_PAYLOADS";
/// Where samples go.
pub const SAMPLE_SINK: &str = "SLIPWAY_SAMPLE_SINK";
/// Inputs that samples leave out, separated by commas.
pub const SAMPLE_REDACT: &str = "SLIPWAY_SAMPLE_REDACT";
/// `true` turns the result cache on.
pub const RESULT_CACHE: &str = "SLIPWAY_RESULT_CACHE";
/// Memory of it in bytes.
pub const RESULT_CACHE_BYTES: &str = "SLIPWAY_RESULT_CACHE_BYTES";
/// How long an answer is kept, in seconds.
pub const RESULT_CACHE_TTL_SECONDS: &str = "SLIPWAY_RESULT_CACHE_TTL_SECONDS";
/// Largest answer that is kept, in bytes.
pub const RESULT_CACHE_MAX_ENTRY_BYTES: &str = "SLIPWAY_RESULT_CACHE_MAX_ENTRY_BYTES";
/// `true`: the cache is asked even where it does not pay.
pub const CACHE_NO_BYPASS: &str = "SLIPWAY_CACHE_NO_BYPASS";
/// Number of most asked inputs that are remembered.
pub const CACHE_HOT_KEYS: &str = "SLIPWAY_CACHE_HOT_KEYS";
/// `true` turns feature rows on.
pub const FEATURE_CACHE: &str = "SLIPWAY_FEATURE_CACHE";
/// Memory of them in bytes.
pub const FEATURE_CACHE_BYTES: &str = "SLIPWAY_FEATURE_CACHE_BYTES";
/// How long a row is kept, in seconds.
pub const FEATURE_TTL_SECONDS: &str = "SLIPWAY_FEATURE_TTL_SECONDS";
/// Where rows come from that are not there.
pub const FEATURE_SOURCE_URL: &str = "SLIPWAY_FEATURE_SOURCE_URL";
/// How long that may take, in milliseconds.
pub const FEATURE_SOURCE_TIMEOUT_MS: &str = "SLIPWAY_FEATURE_SOURCE_TIMEOUT_MS";
/// Redis of the caches.
pub const REDIS_URL: &str = "SLIPWAY_REDIS_URL";
/// How long a request waits for it, in milliseconds.
pub const REDIS_BUDGET_MS: &str = "SLIPWAY_REDIS_BUDGET_MS";
/// Broker of the jobs: Redis or NATS, by the scheme.
pub const QUEUE_URL: &str = "SLIPWAY_QUEUE_URL";
/// Name of the queue at the broker.
pub const QUEUE_NAME: &str = "SLIPWAY_QUEUE_NAME";
/// Replicas of the stream (NATS).
pub const QUEUE_REPLICAS: &str = "SLIPWAY_QUEUE_REPLICAS";
/// Number of jobs that may wait.
pub const QUEUE_MAX_JOBS: &str = "SLIPWAY_QUEUE_MAX_JOBS";
/// How often a job is tried.
pub const JOB_MAX_DELIVERIES: &str = "SLIPWAY_JOB_MAX_DELIVERIES";
/// How long a result is kept, in seconds.
pub const JOB_RESULT_TTL_SECONDS: &str = "SLIPWAY_JOB_RESULT_TTL_SECONDS";
/// Hosts that callbacks may go to, separated by commas.
pub const CALLBACK_ALLOW: &str = "SLIPWAY_CALLBACK_ALLOW";
/// Key by which callbacks are signed (workers).
pub const CALLBACK_SIGNING_KEY: &str = "SLIPWAY_CALLBACK_SIGNING_KEY";
/// Jobs that a worker runs in one batch.
pub const WORKER_MAX_JOBS: &str = "SLIPWAY_WORKER_MAX_JOBS";
/// How long a worker that ends goes on with what it has, in seconds.
pub const WORKER_DRAIN_SECONDS: &str = "SLIPWAY_WORKER_DRAIN_SECONDS";
/// Public key of the operator, for gateways: who else asks for the state is refused.
pub const OPERATOR_PUBLIC_KEY: &str = "SLIPWAY_OPERATOR_PUBLIC_KEY";

/// Options of the model server that only its variables may give, because a server with others would
/// be another's, or serve something else. Templates of users may not have them.
pub const FIXED_OPTIONS: [&str; 9] = [
    "--modeldeployment",
    "--revision",
    "--model-name",
    "--model-version",
    "--model-uri",
    "--model-digest",
    "--queue-url",
    "--queue-name",
    "--fetched-record",
];

/// What gateways read.
pub const GATEWAY: [&str; 4] = [POD_NAME, POD_NAMESPACE, KEYS_DIRECTORY, OPERATOR_PUBLIC_KEY];

/// What model servers read, the init container `fetch` and workers.
pub const MODEL_SERVER: [&str; 37] = [
    NAMESPACE,
    MODELDEPLOYMENT,
    REVISION,
    UID,
    MODEL_NAME,
    MODEL_VERSION,
    MODEL_URI,
    MODEL_DIGEST,
    FETCHED_RECORD,
    POD_NAME,
    KEYS_DIRECTORY,
    BATCHING,
    BASELINE_URI,
    BASELINE_DIGEST,
    SAMPLE_PAYLOADS,
    SAMPLE_SINK,
    SAMPLE_REDACT,
    RESULT_CACHE,
    RESULT_CACHE_BYTES,
    RESULT_CACHE_TTL_SECONDS,
    RESULT_CACHE_MAX_ENTRY_BYTES,
    CACHE_NO_BYPASS,
    CACHE_HOT_KEYS,
    FEATURE_CACHE,
    FEATURE_CACHE_BYTES,
    FEATURE_TTL_SECONDS,
    FEATURE_SOURCE_URL,
    FEATURE_SOURCE_TIMEOUT_MS,
    REDIS_URL,
    REDIS_BUDGET_MS,
    QUEUE_URL,
    QUEUE_NAME,
    QUEUE_REPLICAS,
    QUEUE_MAX_JOBS,
    JOB_MAX_DELIVERIES,
    JOB_RESULT_TTL_SECONDS,
    CALLBACK_ALLOW,
];

/// What workers read besides.
pub const WORKER: [&str; 3] = [WORKER_MAX_JOBS, WORKER_DRAIN_SECONDS, CALLBACK_SIGNING_KEY];
