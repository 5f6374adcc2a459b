//! What is told of a model, by REST and gRPC.

use std::collections::HashMap;

use serde_json::{Value, json};
use slipway_oip::inference::ModelMetadataResponse;
use slipway_oip::inference::model_metadata_response::TensorMetadata;
use slipway_runtime_engine::batching::BatchingDecision;
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};

use crate::PLATFORM;

/// A model, as far as its metadata tell of it.
#[derive(Debug, Clone, Copy)]
pub struct ModelDescription<'a> {
    /// Its name in the protocol.
    pub name: &'a str,
    /// `sha256:<hex>` of its file.
    pub digest: &'a str,
    /// Its inputs and outputs.
    pub signature: &'a ModelSignature,
    /// Whether its requests run together, and why.
    pub batching: &'a BatchingDecision,
}

/// The metadata of a model whose versions these are.
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

/// The metadata of a model whose versions these are.
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

/// What is told of a model beside its inputs and outputs, by REST and gRPC: which bytes it is,
/// whether its requests run together, and why.
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
