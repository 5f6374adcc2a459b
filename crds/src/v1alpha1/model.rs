//! The model to serve. All of these fields are part of the revision.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::BaselineSource;

/// A model: the location of its file and the digest that the file must have.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.uri.matches('^(https?|s3|gs|az|file|pvc)://.+')").message("spec.model.uri: must begin with http://, https://, s3://, gs://, az://, pvc:// or file://"),
    validation = Rule::new("!self.uri.matches('^https?://') || self.uri.matches('^https?://([A-Za-z0-9][-.A-Za-z0-9]*|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?/[^ ]+$')").message("spec.model.uri: an http(s) URI has a host and a path, as in http://host/path/model.onnx; credentials go into the environment of the container server in spec.template"),
    validation = Rule::new("!self.uri.matches('^(s3|gs|az)://') || self.uri.matches('^(s3|gs|az)://[^/ ]+/[^ ]+$')").message("spec.model.uri: an object store's URI has a bucket and a key, as in s3://bucket/path/model.onnx"),
    validation = Rule::new("!self.uri.startsWith('pvc://') || self.uri.matches('^pvc://[a-z0-9]([-.a-z0-9]*[a-z0-9])?/[^/].*$')").message("spec.model.uri: names a PersistentVolumeClaim of this namespace and a file in it, as in pvc://claim/path/model.onnx"),
    validation = Rule::new("!self.uri.startsWith('file://') || self.uri.matches('^file:///[^/].*$')").message("spec.model.uri: the path of a file is absolute, with three slashes, as in file:///models/model.onnx"),
    validation = Rule::new("!self.uri.matches('(^|/)[.][.](/|$)')").message("spec.model.uri: must not contain '..'; write the path that is meant"),
    validation = Rule::new("!self.uri.startsWith('http://') || has(self.digest)").message("spec.model.digest: required with http://, where anybody on the way could choose the model; write what `sha256sum model.onnx` prints, or use https://"),
    validation = Rule::new("!has(self.digest) || self.digest.matches('^sha256:[0-9a-f]{64}$')").message("spec.model.digest: must be sha256: and 64 lower-case hex digits, as `sha256sum model.onnx` prints them")
)]
pub struct ModelSpec {
    /// Name of the model in the Open Inference Protocol (`/v2/models/<name>`). Default: the name
    /// of the ModelDeployment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$")
    )]
    pub name: Option<String>,

    /// Version for display: shown by `kubectl get`, in metrics and in answers. Default: the
    /// revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$")
    )]
    pub version: Option<String>,

    /// Location of the model file: `http(s)://host/path`, `s3://bucket/key`, `gs://`, `az://`,
    /// `pvc://claim/path` or `file:///path`.
    #[schemars(length(min = 8, max = 2048))]
    pub uri: String,

    /// Digest of the model, `sha256:<hex>`: the output of `sha256sum` for its file, or of
    /// `slipway-runtime fetch` for a model with weights in separate files. A model with another
    /// digest is never served. Without this field the first pod of a revision starts alone, and
    /// all later pods must find the same digest as it did (`status.stable.digest`). Required with
    /// `http://`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,

    /// Whether requests of different clients may run as one batch. Auto (default): if the graph
    /// and a trial at load prove that the model keeps rows apart. Enabled: always, because you
    /// know that the first axis consists of independent rows. Disabled: every request runs alone.
    /// The metadata of the model (`/v2/models/<name>`) shows the decision and its reason.
    #[serde(default, skip_serializing_if = "BatchingPolicy::is_auto")]
    pub batching: BatchingPolicy,

    /// What the model's traffic is compared with, and the requests whose answers the model must
    /// reproduce before a pod serves. Without it there are no metrics of drift and of expected
    /// accuracy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub baseline: Option<BaselineSource>,
}

/// Whether requests of different clients may run as one batch.
#[derive(JsonSchema, Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BatchingPolicy {
    /// If it is proven that the model keeps rows apart.
    #[default]
    Auto,
    /// Always; the owner of the model knows that rows are independent.
    Enabled,
    /// Never: every request runs alone.
    Disabled,
}

impl BatchingPolicy {
    /// Whether this is the meaning of an absent field. Such a field is not serialized, so that
    /// setting the default explicitly creates no new revision.
    pub const fn is_auto(&self) -> bool {
        matches!(self, Self::Auto)
    }
}
