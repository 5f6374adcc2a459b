//! The keys of a namespace in pods: files of the Secret `slipway-keys`, which the operator creates
//! and never reads.

use k8s_openapi::api::core::v1::{EnvVar, KeyToPath, SecretVolumeSource, Volume, VolumeMount};
use slipway_contracts::{environment, files};

use crate::pod::env_var;
use crate::reserved::KEYS_VOLUME;
use crate::volumes::volume_mount;

/// Name of the Secret.
pub const KEYS: &str = files::KEYS_SECRET;
/// Its data: 32 random bytes that keys are derived from, and the token that clients show.
pub const KEYS_FILES: [&str; 2] = [files::MASTER_KEY, files::TOKEN];

/// The volume and its mount. A pod starts even without the Secret; programs read a key only when
/// they need it.
pub(crate) fn keys_volume() -> (Volume, VolumeMount) {
    let items =
        KEYS_FILES.map(|key| KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None });
    let secret = SecretVolumeSource {
        secret_name: Some(KEYS.to_owned()),
        items: Some(items.to_vec()),
        optional: Some(true),
        ..SecretVolumeSource::default()
    };
    let volume = Volume { name: KEYS_VOLUME.to_owned(), secret: Some(secret), ..Volume::default() };
    (
        volume,
        VolumeMount { read_only: Some(true), ..volume_mount(KEYS_VOLUME, files::KEYS_DIRECTORY) },
    )
}

/// The variable with the directory of the files.
pub(crate) fn keys_environment() -> EnvVar {
    env_var(environment::KEYS_DIRECTORY, files::KEYS_DIRECTORY)
}
