//! Directories and files of pods: where the operator mounts what the programs look for.

/// Where a model server keeps the models that it has downloaded.
pub const MODELS_DIRECTORY: &str = "/models";
/// Where claims of volumes are mounted, each in a directory of its name.
pub const CLAIMS_DIRECTORY: &str = "/mnt/models";
/// Where the kubelet reads the termination message of a container.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// Secret with the keys of a namespace.
pub const KEYS_SECRET: &str = "slipway-keys";
/// Where its entries are mounted, as files.
pub const KEYS_DIRECTORY: &str = "/var/run/slipway/keys";
/// Its entry from which keys are derived: random bytes.
pub const MASTER_KEY: &str = "master";
/// Its entry that clients and programs show at the port `private`.
pub const TOKEN: &str = "token";
