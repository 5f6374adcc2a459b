//! Determines the weights in force while the operator has written none.

use slipway_gateway_policy::config::{
    ArmRole, ModelConfig, RevisionEndpoints, TrafficWeights, WeightedBackend,
};

/// The generation of weights; 0 when there are none.
pub(crate) fn weights_generation(weights: Option<&TrafficWeights>) -> i64 {
    weights.map_or(0, |weights| weights.generation)
}

/// The backends, and the preview revision as a candidate without weight when it is not among them.
pub(crate) fn backends_with_preview(weights: &TrafficWeights) -> Vec<WeightedBackend> {
    let mut backends = weights.backends.clone();
    if let Some(preview) = &weights.preview
        && backends.iter().all(|backend| backend.revision != *preview)
    {
        backends.push(WeightedBackend {
            revision: preview.clone(),
            role: ArmRole::Candidate,
            permille: 0,
        });
    }
    backends
}

/// Whether a revision with a weight has endpoints.
pub(crate) fn has_served_backend(weights: &TrafficWeights, endpoints: &RevisionEndpoints) -> bool {
    weights.backends.iter().filter(|backend| backend.permille > 0).any(|backend| {
        let group = endpoints.get(&backend.revision);
        group.is_some_and(|group| !group.ready.is_empty() || !group.draining.is_empty())
    })
}

/// All traffic to one revision, for a gateway that has never seen weights (a new pod while the
/// status was lost).
///
/// The choice, safest first: the stable revision according to the status; else, among revisions
/// with endpoints, the one with the most ready pods, because stable keeps full capacity during a
/// rollout while a candidate is sized by its share; of equals the oldest. The generation is 0, so
/// that no operator regards this as confirmed.
pub(crate) fn guess_weights(
    config: &ModelConfig,
    endpoints: &RevisionEndpoints,
) -> Option<TrafficWeights> {
    let revision = config.stable.clone().or_else(|| {
        let usable = endpoints
            .iter()
            .filter(|(_, group)| !group.ready.is_empty() || !group.draining.is_empty());
        let best = usable
            .max_by_key(|(_, group)| (group.ready.len(), std::cmp::Reverse(group.created)))?;
        Some(best.0.clone())
    })?;
    let backends = vec![WeightedBackend { revision, role: ArmRole::Stable, permille: 1000 }];
    Some(TrafficWeights { generation: 0, backends, preview: None })
}
