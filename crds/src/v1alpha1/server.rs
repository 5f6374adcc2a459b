//! The model server and its settings. All of these fields are part of the revision.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{CacheSpec, QueueStore, SamplingSpec};

/// The model server: its caches, its job queue and its samples.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ModelServerSpec {
    /// Caches of the pods: answers and input rows, in memory and in Redis. Disabled if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,

    /// Store of the job queue. Without it there are no jobs. The bounds and the workers of the
    /// queue are in `spec.queue`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<QueueStore>,

    /// Samples of requests and answers. Disabled if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampling: Option<SamplingSpec>,
}

impl ModelServerSpec {
    /// Whether no field is set. An empty value is not serialized and creates no new revision.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
