//! Names reserved by Slipway: of objects beside those of a ModelDeployment, and of parts of its
//! pods. Validation rejects a spec that uses one.

use k8s_openapi::api::core::v1::Probe;
use slipway_contracts::{environment, files, ports};
use slipway_crds::labels;

/// Name of all objects of a namespace's gateway.
pub const GATEWAY: &str = "slipway-gateway";

/// Name of the ReplicaSet and of the Service of one revision.
pub fn revision_name(name: &str, revision: &str) -> String {
    format!("{name}-{revision}")
}

/// Name of the preview Service.
pub fn preview_name(name: &str) -> String {
    format!("{name}-preview")
}

/// Name of the Deployment of workers and of its autoscaler.
pub fn worker_name(name: &str) -> String {
    format!("{name}-worker")
}

/// The init container that fetches the model.
pub const FETCH: &str = "fetch";
/// The variable with the digest of the model, for that container and the model server.
pub const DIGEST_VARIABLE: &str = environment::MODEL_DIGEST;
/// The container of the Redis sidecar.
pub(crate) const REDIS: &str = "redis";
/// The container of workers, and the first argument of the program in them.
pub(crate) const WORKER: &str = "worker";
/// Containers beside the model server, and its name in workers.
pub const CONTAINERS: [&str; 3] = [FETCH, REDIS, WORKER];

/// The volume of the socket of the Redis sidecar.
pub(crate) const SOCKET_VOLUME: &str = "redis";
/// The volumes of the claims in the URIs of the model and of its baseline.
pub(crate) const CLAIM_VOLUMES: [&str; 2] = ["claim", "claim-baseline"];
/// The volume of the Secret with the keys of the namespace.
pub(crate) const KEYS_VOLUME: &str = files::KEYS_SECRET;
/// Volumes that a template cannot take the place of, unlike [`MODELS_VOLUME`] and [`TMP_VOLUME`].
pub const VOLUMES: [&str; 4] = [CLAIM_VOLUMES[0], CLAIM_VOLUMES[1], SOCKET_VOLUME, KEYS_VOLUME];

/// The volume of the model files.
pub(crate) const MODELS_VOLUME: &str = "models";
/// The volume of `/tmp`.
pub(crate) const TMP_VOLUME: &str = "tmp";
/// Volumes of which nothing is missed when a pod goes.
pub(crate) const SCRATCH_VOLUMES: [&str; 3] = [MODELS_VOLUME, TMP_VOLUME, SOCKET_VOLUME];

/// The port of predictions.
pub(crate) const HTTP: (&str, i32) = ports::HTTP.for_kubernetes();
/// The port of a gateway for those who show the token of the namespace.
pub(crate) const PRIVATE: (&str, i32) = ports::PRIVATE.for_kubernetes();
/// The port of metrics, probes and administration.
pub(crate) const METRICS: (&str, i32) = ports::METRICS.for_kubernetes();

/// The port of the metrics, probes and state stream of gateways.
pub(crate) const GATEWAY_ADMIN: (&str, i32) = ports::GATEWAY_ADMIN.for_kubernetes();
/// Ports of the model server, by name and by number.
pub const SERVER_PORTS: [(&str, i32); 2] = [HTTP, METRICS];

/// Labels by which pods are found, besides those under [`labels::PREFIX`].
const LABELS: [&str; 3] = [labels::COMPONENT, labels::MANAGED_BY, labels::PART_OF];

/// Whether a ModelDeployment may not have this name, because an object of another ModelDeployment
/// or of the gateway may have it.
pub fn is_reserved(name: &str) -> bool {
    name == GATEWAY
        || [preview_name(""), worker_name("")].iter().any(|suffix| name.ends_with(suffix.as_str()))
}

/// Whether a template may not set this label: it says which pods are Slipway's.
pub fn is_reserved_label(label: &str) -> bool {
    label.starts_with(labels::PREFIX) || LABELS.contains(&label)
}

/// Whether a template may not have this argument of the model server, alone or with its value.
pub fn is_reserved_argument(argument: &str) -> bool {
    environment::FIXED_OPTIONS.contains(&argument.split('=').next().unwrap_or_default())
}

/// Variables of the model server that nobody else may set: labels of metrics and the digest that is
/// verified must be those of the revision.
pub fn is_reserved_variable(variable: &str) -> bool {
    variable.starts_with(environment::PREFIX) || variable == environment::POD_NAME
}

/// The probe without its handler, that is, only its times and thresholds.
pub(crate) fn without_handler(probe: &Probe) -> Probe {
    Probe { exec: None, grpc: None, http_get: None, tcp_socket: None, ..probe.clone() }
}

/// Whether a probe has a handler, and not only times and thresholds.
pub fn has_handler(probe: &Probe) -> bool {
    *probe != without_handler(probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The API server rejects the same names first, by its schema.
    #[test]
    fn the_schema_refuses_the_same_names() {
        let crd = serde_json::to_string(&slipway_crds::all_crds()).unwrap();
        for rule in [
            format!("!self.metadata.name.endsWith('{}')", preview_name("")),
            format!("!self.metadata.name.endsWith('{}')", worker_name("")),
            format!("self.metadata.name != '{GATEWAY}'"),
        ] {
            assert!(crd.contains(&rule), "{rule}");
        }
        assert!(
            is_reserved("a-preview")
                && is_reserved("a-worker")
                && is_reserved(GATEWAY)
                && !is_reserved("digits")
        );
    }
}
