//! Observation of traffic: the baseline to compare it with, outcomes, samples.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::units::{Percentage, SHARE};

/// The baseline of a model, as written by `kubectl slipway baseline`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.uri.matches('^(https?|s3|gs|az|pvc)://[^/ ]+/[^ ]+$') || self.uri.matches('^file:///[^/ ][^ ]*$')").message("spec.model.baseline.uri: an address as of spec.model.uri, as in s3://bucket/path/baseline.json"),
    validation = Rule::new("!self.uri.matches('(^|/)[.][.](/|$)')").message("spec.model.baseline.uri: must not contain '..'; write the path that is meant"),
    validation = Rule::new("!has(self.digest) || self.digest.matches('^sha256:[0-9a-f]{64}$')").message("spec.model.baseline.digest: must be sha256: and 64 lower-case hex digits, as `sha256sum baseline.json` prints them")
)]
pub struct BaselineSource {
    /// Location of baseline.json; allows the same schemes as the model.
    #[schemars(length(min = 8, max = 2048))]
    pub uri: String,

    /// Digest of the file, `sha256:<hex>`. If set, a baseline with another digest is never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
}

/// What feedback may report besides labels.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.outcomes) || self.outcomes.all(o, o.matches('^[a-z][a-z0-9_]{0,31}$'))").message("spec.feedback.outcomes: names of at most 32 of a-z, 0-9 and _, starting with a letter, as in conversion or revenue")
)]
pub struct FeedbackSpec {
    /// Names of the outcomes that are counted for each revision. Other names are rejected, because
    /// every name is the value of a label in the metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub outcomes: Vec<String>,
}

fn one_percent() -> Percentage {
    Percentage::from_text("1%")
}

/// Samples of requests and answers, written as JSON lines. Sampling never delays a request: samples
/// that the sink cannot accept are dropped and counted.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.sink.matches('^(s3|gs|az)://[^/ ]+/[^ ]*$') || self.sink.matches('^file:///[^/ ][^ ]*$')").message("spec.server.sampling.sink: a folder of an object store, as in s3://bucket/samples, or of the pod's /tmp, as in file:///tmp/samples")
)]
pub struct SamplingSpec {
    /// Share of the requests to sample.
    #[serde(default = "one_percent")]
    #[schemars(extend("minimum" = 1, "maximum" = 100, "pattern" = SHARE))]
    pub rate: Percentage,

    /// Destination of the samples: `s3://bucket/prefix`, `gs://`, `az://` or `file:///directory`.
    #[schemars(length(min = 8, max = 2048))]
    pub sink: String,

    /// Names of inputs whose values are left out of samples.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 256)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub redact_inputs: Vec<String>,
}
