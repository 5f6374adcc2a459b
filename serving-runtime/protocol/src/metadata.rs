//! The metadata of a model, for REST and gRPC.

use std::collections::HashMap;

use serde_json::{Value, json};
use slipway_oip::inference::ModelMetadataResponse;
use slipway_oip::inference::model_metadata_response::TensorMetadata;
use slipway_runtime_engine::batching::BatchingDecision;
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};

use crate::PLATFORM;

/// The properties of a model that appear in its metadata.
#[derive(Debug, Clone, Copy)]
pub struct ModelDescription<'a> {
    /// The model's name in the protocol.
    pub name: &'a str,
    /// `sha256:<hex>` of the model's file.
    pub digest: &'a str,
    pub signature: &'a ModelSignature,
    /// Whether the model's requests run together, and why.
    pub batching: &'a BatchingDecision,
}

/// The metadata of a model as JSON, with the list of its versions.
pub fn metadata_json(model: &ModelDescription<'_>, versions: &[String]) -> Value {
    let tensors = |specs: &[TensorSignature]| -> Vec<Value> {
        specs
            .iter()
            .map(
                |s| json!({"name": s.name, "datatype": s.datatype.name(), "shape": s.wire_shape()}),
            )
            .collect()
    };
    json!({
        "name": model.name,
        "versions": versions,
        "platform": PLATFORM,
        "inputs": tensors(&model.signature.inputs),
        "outputs": tensors(&model.signature.outputs),
        "properties": model_properties(model),
    })
}

/// The metadata of a model as a gRPC message, with the list of its versions.
pub fn metadata_message(
    model: &ModelDescription<'_>,
    versions: Vec<String>,
) -> ModelMetadataResponse {
    let tensors = |specs: &[TensorSignature]| -> Vec<TensorMetadata> {
        let each = specs.iter();
        each.map(|s| TensorMetadata {
            name: s.name.clone(),
            datatype: s.datatype.name().to_owned(),
            shape: s.wire_shape(),
        })
        .collect()
    };
    ModelMetadataResponse {
        name: model.name.to_owned(),
        versions,
        platform: PLATFORM.to_owned(),
        inputs: tensors(&model.signature.inputs),
        outputs: tensors(&model.signature.outputs),
        properties: model_properties(model),
    }
}

/// The properties of a model besides its inputs and outputs, for REST and gRPC: its digest, whether
/// its requests run together, and why.
fn model_properties(model: &ModelDescription<'_>) -> HashMap<String, String> {
    let batching = if model.batching.merged { "enabled" } else { "disabled" };
    let all = [
        ("digest", model.digest),
        ("batching", batching),
        ("batching_cause", model.batching.cause.name()),
        ("batching_reason", model.batching.reason.as_str()),
    ];
    all.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
