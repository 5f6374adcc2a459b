//! Environment variables that the operator sets in pods and that gateway and model server read.
//!
//! Every one of them is an option of the program as well; options that the operator does not set
//! are declared by the programs alone. The lists at the end say which program reads what: a test of
//! the builders (`operator/objects`) holds them against what pods get, a test of each program
//! against its options.

/// Prefix of Slipway's variables. Pod templates of users must not set any of them.
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
/// UID of the ModelDeployment, from which keys are derived.
pub const UID: &str = "SLIPWAY_UID";
/// Name of the model in the paths of the Open Inference Protocol.
pub const MODEL_NAME: &str = "SLIPWAY_MODEL_NAME";
/// Version of the model according to the spec, for information only.
pub const MODEL_VERSION: &str = "SLIPWAY_MODEL_VERSION";
/// URI of the model file.
pub const MODEL_URI: &str = "SLIPWAY_MODEL_URI";
/// Digest of the model as `sha256:<hex>`; empty until it is known.
pub const MODEL_DIGEST: &str = "SLIPWAY_MODEL_DIGEST";
/// File in which the init container `fetch` records the fetched model.
pub const FETCHED_RECORD: &str = "SLIPWAY_FETCHED_RECORD";
/// Directory of the Secret `slipway-keys`.
pub const KEYS_DIRECTORY: &str = "SLIPWAY_KEYS_DIRECTORY";
/// `auto` or `disabled`, when the spec sets it.
pub const BATCHING: &str = "SLIPWAY_BATCHING";
/// URI of `baseline.json`.
pub const BASELINE_URI: &str = "SLIPWAY_BASELINE_URI";
/// Digest of `baseline.json` as `sha256:<hex>`.
pub const BASELINE_DIGEST: &str = "SLIPWAY_BASELINE_DIGEST";
/// Share of requests that are sampled, from 0 to 1.
pub const SAMPLE_PAYLOADS: &str = "SLIPWAY_SAMPLE_PAYLOADS";
/// Destination of the samples.
pub const SAMPLE_SINK: &str = "SLIPWAY_SAMPLE_SINK";
/// Inputs that are omitted from samples, separated by commas.
pub const SAMPLE_REDACT: &str = "SLIPWAY_SAMPLE_REDACT";
/// `true` turns the result cache on.
pub const RESULT_CACHE: &str = "SLIPWAY_RESULT_CACHE";
/// Memory limit of the result cache in bytes.
pub const RESULT_CACHE_BYTES: &str = "SLIPWAY_RESULT_CACHE_BYTES";
/// How long an answer is cached, in seconds.
pub const RESULT_CACHE_TTL_SECONDS: &str = "SLIPWAY_RESULT_CACHE_TTL_SECONDS";
/// Largest cached answer, in bytes.
pub const RESULT_CACHE_MAX_ENTRY_BYTES: &str = "SLIPWAY_RESULT_CACHE_MAX_ENTRY_BYTES";
/// `true`: the cache is used even where it is of no benefit.
pub const CACHE_NO_BYPASS: &str = "SLIPWAY_CACHE_NO_BYPASS";
/// Number of most frequent inputs to record.
pub const CACHE_HOT_KEYS: &str = "SLIPWAY_CACHE_HOT_KEYS";
/// `true` turns feature rows on.
pub const FEATURE_CACHE: &str = "SLIPWAY_FEATURE_CACHE";
/// Memory limit of feature rows in bytes.
pub const FEATURE_CACHE_BYTES: &str = "SLIPWAY_FEATURE_CACHE_BYTES";
/// How long a row is cached, in seconds.
pub const FEATURE_TTL_SECONDS: &str = "SLIPWAY_FEATURE_TTL_SECONDS";
/// Source of rows that are not cached.
pub const FEATURE_SOURCE_URL: &str = "SLIPWAY_FEATURE_SOURCE_URL";
/// Time limit for requests to the source, in milliseconds.
pub const FEATURE_SOURCE_TIMEOUT_MS: &str = "SLIPWAY_FEATURE_SOURCE_TIMEOUT_MS";
/// URL of the caches' Redis.
pub const REDIS_URL: &str = "SLIPWAY_REDIS_URL";
/// How long a request waits for Redis, in milliseconds.
pub const REDIS_BUDGET_MS: &str = "SLIPWAY_REDIS_BUDGET_MS";
/// URL of the job broker: Redis or NATS, by the scheme.
pub const QUEUE_URL: &str = "SLIPWAY_QUEUE_URL";
/// Name of the queue at the broker.
pub const QUEUE_NAME: &str = "SLIPWAY_QUEUE_NAME";
/// Number of replicas of the stream (NATS).
pub const QUEUE_REPLICAS: &str = "SLIPWAY_QUEUE_REPLICAS";
/// Maximum number of waiting jobs.
pub const QUEUE_MAX_JOBS: &str = "SLIPWAY_QUEUE_MAX_JOBS";
/// Maximum number of attempts of a job.
pub const JOB_MAX_DELIVERIES: &str = "SLIPWAY_JOB_MAX_DELIVERIES";
/// How long a result is stored, in seconds.
pub const JOB_RESULT_TTL_SECONDS: &str = "SLIPWAY_JOB_RESULT_TTL_SECONDS";
/// Hosts that are allowed for callbacks, separated by commas.
pub const CALLBACK_ALLOW: &str = "SLIPWAY_CALLBACK_ALLOW";
/// Key that signs callbacks (workers).
pub const CALLBACK_SIGNING_KEY: &str = "SLIPWAY_CALLBACK_SIGNING_KEY";
/// Number of jobs that a worker runs in one batch.
pub const WORKER_MAX_JOBS: &str = "SLIPWAY_WORKER_MAX_JOBS";
/// How long a terminating worker continues with its current jobs, in seconds.
pub const WORKER_DRAIN_SECONDS: &str = "SLIPWAY_WORKER_DRAIN_SECONDS";
/// Public key of the operator, for gateways: requests for the state from other clients are
/// rejected.
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
