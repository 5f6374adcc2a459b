//! What serves the model, and how. All of this makes the revision.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{CacheSpec, QueueStore, SamplingSpec};

/// The model server: what it keeps, where its jobs wait, what it samples.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelServerSpec {
    /// What the pods keep so that it need not be done again: answers, in memory and in Redis. Off
    /// when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,

    /// Where jobs wait for a worker. Without it there are no jobs. Its bounds and its workers are
    /// `spec.queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStore>,

    /// Samples of requests and answers. Off when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingSpec>,
}

impl ModelServerSpec {
    /// Whether nothing is said, so that it makes no other revision.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
