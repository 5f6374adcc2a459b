//! Amounts and shares of the spec. The schema validates their form; their range is validated here,
//! because comparing a quantity in a string exceeds the cost budget of CEL.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use slipway_crds::v1alpha1::units::{SHARE_BOUNDS, check_share, quantity_bytes};
use slipway_crds::v1alpha1::{CacheSpec, ModelDeploymentSpec};

const MEBIBYTE: i64 = 1 << 20;
const GIBIBYTE: i64 = 1 << 30;

/// The first amount that is out of its range.
pub(super) fn find_amount_problem(spec: &ModelDeploymentSpec) -> Option<String> {
    let traffic = &spec.traffic;
    check_amount("spec.traffic.maxRequestSize", &traffic.max_request_size, (65_536, 128 * MEBIBYTE))
        .or_else(|| {
            check_share("spec.traffic.brake.failureRate", &traffic.brake.failure_rate, SHARE_BOUNDS)
        })
        .or_else(|| {
            check_share(
                "spec.analysis.falseRollbackRate",
                &spec.analysis.false_rollback_rate,
                (0.01, 20.0),
            )
        })
        .or_else(|| {
            check_share(
                "spec.server.sampling.rate",
                &spec.server.sampling.as_ref()?.rate,
                SHARE_BOUNDS,
            )
        })
        .or_else(|| check_cache(spec.server.cache.as_ref()?))
        .or_else(|| {
            spec.analysis.gates.iter().flatten().find_map(slipway_judge::find_share_problem)
        })
}

fn check_cache(cache: &CacheSpec) -> Option<String> {
    let memory = (0, 64 * GIBIBYTE);
    let results = || {
        let results = cache.results.as_ref()?;
        check_amount(
            "spec.server.cache.results.maxEntrySize",
            &results.max_entry_size,
            (1, 64 * MEBIBYTE),
        )
        .or_else(|| check_amount("spec.server.cache.results.memory", &results.memory, memory))
    };
    let features = || {
        check_amount("spec.server.cache.features.memory", &cache.features.as_ref()?.memory, memory)
    };
    let sidecar = || {
        let sidecar = cache.sidecar.as_ref()?;
        check_amount(
            "spec.server.cache.sidecar.maxMemory",
            &sidecar.max_memory,
            (8 * MEBIBYTE, 64 * GIBIBYTE),
        )
    };
    results().or_else(features).or_else(sidecar)
}

fn check_amount(field: &str, amount: &Quantity, (from, to): (i64, i64)) -> Option<String> {
    let fits = quantity_bytes(amount).is_some_and(|bytes| (from..=to).contains(&bytes));
    (!fits).then(|| {
        format!(
            "{field}: {:?} must be an amount of memory from {} to {}, as in 64Mi",
            amount.0,
            format_bytes(from),
            format_bytes(to)
        )
    })
}

fn format_bytes(bytes: i64) -> String {
    [(GIBIBYTE, "Gi"), (MEBIBYTE, "Mi"), (1 << 10, "Ki")]
        .into_iter()
        .find(|(unit, _)| bytes >= *unit && bytes % unit == 0)
        .map_or_else(|| bytes.to_string(), |(unit, suffix)| format!("{}{suffix}", bytes / unit))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problem(more: &Value) -> Option<String> {
        let mut spec = json!({ "model": { "uri": "https://store/m.onnx" } });
        spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        find_amount_problem(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn what_is_out_of_its_range_is_refused_by_the_name_of_its_field() {
        let gate = |type_: &str, name: &str, settings: Value| json!({ "analysis": { "mode": "Custom", "gates": [{ "name": "g", "type": type_, name: settings }] } });
        for (spec, field) in [
            (
                json!({ "traffic": { "maxRequestSize": "1Ki" } }),
                "spec.traffic.maxRequestSize: \"1Ki\" must be",
            ),
            (json!({ "traffic": { "maxRequestSize": "1Gi" } }), "from 64Ki to 128Mi"),
            (
                json!({ "traffic": { "brake": { "failureRate": "0%" } } }),
                "spec.traffic.brake.failureRate: must be",
            ),
            (
                json!({ "analysis": { "falseRollbackRate": "20.1%" } }),
                "spec.analysis.falseRollbackRate: must be",
            ),
            (
                json!({ "server": { "sampling": { "sink": "s3://b/p", "rate": "101%" } } }),
                "spec.server.sampling.rate",
            ),
            (
                json!({ "server": { "cache": { "sidecar": { "maxMemory": "1Mi" } } } }),
                "spec.server.cache.sidecar.maxMemory",
            ),
            (
                json!({ "server": { "cache": { "results": { "memory": "65Gi" } } } }),
                "spec.server.cache.results.memory",
            ),
            (
                json!({ "server": { "cache": { "results": { "maxEntrySize": "0" } } } }),
                "cache.results.maxEntrySize",
            ),
            (
                json!({ "server": { "cache": { "features": { "memory": "-1" } } } }),
                "spec.server.cache.features.memory",
            ),
            (
                gate("ErrorRate", "errorRate", json!({ "maxIncrease": 0 })),
                "gates[g].errorRate.maxIncrease: must be",
            ),
            (
                gate("Accuracy", "accuracy", json!({ "maxDrop": "many" })),
                "gates[g].accuracy.maxDrop: must be",
            ),
            (
                gate("Latency", "latency", json!({ "quantile": "99.95%" })),
                "gates[g].latency.quantile: must be",
            ),
            (
                gate("Latency", "latency", json!({ "maxRatio": 99 })),
                "gates[g].latency.maxRatio: must be",
            ),
            (
                gate("Latency", "latency", json!({ "maxIncrease": -1 })),
                "gates[g].latency.maxIncrease: must be",
            ),
        ] {
            let problem = problem(&spec).unwrap_or_else(|| panic!("{spec} is not refused"));
            assert!(problem.contains(field), "{problem}");
        }
    }

    #[test]
    fn bounds_are_allowed() {
        for spec in [
            json!({}),
            json!({ "traffic": { "maxRequestSize": 65536, "brake": { "failureRate": "0.01%" } } }),
            json!({ "analysis": { "falseRollbackRate": 20 } }),
            json!({ "analysis": { "mode": "Custom", "gates": [{ "name": "g", "type": "Latency", "latency": { "quantile": "99.9%", "maxRatio": "10000%" } }] } }),
            json!({ "server": { "cache": { "results": { "memory": 0 }, "sidecar": { "maxMemory": "64Gi" } } } }),
        ] {
            assert_eq!(problem(&spec), None, "{spec}");
        }
    }
}
