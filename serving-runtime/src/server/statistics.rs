//! Writes the answers of the statistics extension.

use serde_json::{Value, json};
use slipway_oip::inference as pb;
use slipway_runtime_engine::stats::DurationTotal;
use slipway_runtime_predict::models::LoadedModel;

/// The answer over REST.
pub(super) fn statistics_json(model: &LoadedModel) -> Value {
    let s = model.stats.snapshot();
    let none = DurationTotal::default();
    let batches: Vec<Value> = s
        .batches
        .iter()
        .map(|(size, tally)| json!({"batch_size": size, "compute_input": none, "compute_infer": tally, "compute_output": none}))
        .collect();
    json!({
        "name": model.name,
        "version": model.version,
        "last_inference": s.last_inference,
        "inference_count": s.inference_count,
        "execution_count": s.execution_count,
        "inference_stats": s.requests,
        "batch_stats": batches,
    })
}

/// The answer over gRPC.
pub(super) fn statistics_message(model: &LoadedModel) -> pb::ModelStatistics {
    let tally = |t: &DurationTotal| Some(pb::StatisticDuration { count: t.count, ns: t.ns });
    let none = DurationTotal::default();
    let s = model.stats.snapshot();
    let r = &s.requests;
    pb::ModelStatistics {
        name: model.name.clone(),
        version: model.version.clone(),
        last_inference: s.last_inference,
        inference_count: s.inference_count,
        execution_count: s.execution_count,
        inference_stats: Some(pb::InferStatistics {
            success: tally(&r.success),
            fail: tally(&r.fail),
            queue: tally(&r.queue),
            compute_input: tally(&r.compute_input),
            compute_infer: tally(&r.compute_infer),
            compute_output: tally(&r.compute_output),
            cache_hit: tally(&r.cache_hit),
            cache_miss: tally(&r.cache_miss),
        }),
        batch_stats: s
            .batches
            .iter()
            .map(|(size, t)| pb::InferBatchStatistics {
                batch_size: *size as u64,
                compute_input: tally(&none),
                compute_infer: tally(t),
                compute_output: tally(&none),
            })
            .collect(),
    }
}
