//! The parts of a pod template that must not be overridden, because the guarantees depend on them.
//! The messages name the field.

use k8s_openapi::api::core::v1::{Container, PodSpec};
use slipway_crds::v1alpha1::{ModelDeploymentSpec, SERVER_CONTAINER};
use slipway_objects::reserved::{
    CONTAINERS, SERVER_PORTS, VOLUMES, has_handler, is_reserved_argument, is_reserved_label,
    is_reserved_variable,
};

/// Seconds that a pod needs at its end beside the longest request.
const END_SECONDS: i64 = 10;

/// The first field that must not be set.
pub(super) fn find_template_problem(spec: &ModelDeploymentSpec) -> Option<String> {
    let metadata = spec.template.metadata.as_ref();
    if let Some(label) =
        metadata.and_then(|metadata| metadata.labels.keys().find(|label| is_reserved_label(label)))
    {
        return Some(format!(
            "spec.template.metadata.labels[{label}]: says which pods are Slipway's and is set by it; choose another name"
        ));
    }
    let pod = spec.template.spec.as_ref()?;
    find_pod_problem(pod, spec).map(|(field, why)| format!("spec.template.spec.{field}: {why}"))
}

fn find_pod_problem(pod: &PodSpec, spec: &ModelDeploymentSpec) -> Option<(String, String)> {
    let refused = |field: &str, why: String| Some((field.to_owned(), why));
    if pod.restart_policy.as_deref().is_some_and(|policy| policy != "Always") {
        return refused(
            "restartPolicy",
            "a model server is always restarted; leave it out".to_owned(),
        );
    }
    let needed = i64::from(spec.traffic.timeout_seconds) + END_SECONDS;
    if let Some(seconds) = pod.termination_grace_period_seconds.filter(|seconds| *seconds < needed)
    {
        let why = format!(
            "{seconds} is less than a request may take (spec.traffic.timeoutSeconds) and {END_SECONDS} s more, so requests in flight would be cut; give at least {needed}"
        );
        return refused("terminationGracePeriodSeconds", why);
    }
    let volume =
        pod.volumes.iter().flatten().find(|volume| VOLUMES.contains(&volume.name.as_str()));
    if let Some(volume) = volume {
        let why = "holds what spec.model, or the cache, names; choose another name".to_owned();
        return refused(&format!("volumes[{}]", volume.name), why);
    }
    let before =
        pod.init_containers.iter().flatten().map(|container| ("initContainers", container));
    let beside = pod.containers.iter().map(|container| ("containers", container));
    before.chain(beside).find_map(|(list, container)| {
        let found = match (list, container.name.as_str()) {
            ("containers", SERVER_CONTAINER) => find_server_problem(container),
            (_, name) if name == SERVER_CONTAINER || CONTAINERS.contains(&name) => Some((
                String::new(),
                "is the name of a container of Slipway's; choose another name".to_owned(),
            )),
            _ if container.image.is_none() => Some((".image".to_owned(), "is missing".to_owned())),
            _ => None,
        };
        found.map(|(field, why)| (format!("{list}[{}]{field}", container.name), why))
    })
}

fn find_server_problem(server: &Container) -> Option<(String, String)> {
    let set = "is set by Slipway";
    // The user's own image has arguments of its own.
    let ours = server.image.is_none();
    if let Some(argument) =
        server.args.iter().flatten().find(|argument| ours && is_reserved_argument(argument))
    {
        return Some((
            format!(".args[{argument}]"),
            format!("{set}, from spec.model and spec.server; leave it out"),
        ));
    }
    if let Some(variable) =
        server.env.iter().flatten().find(|variable| is_reserved_variable(&variable.name))
    {
        return Some((
            format!(".env[{}]", variable.name),
            format!("{set}; choose another name, or use args"),
        ));
    }
    if server.command.is_some() && server.image.is_none() {
        return Some((
            ".command".to_owned(),
            "Slipway's own image has one; give an image, or use args".to_owned(),
        ));
    }
    let taken = |name: Option<&str>, number: i32| {
        SERVER_PORTS.iter().any(|(n, port)| name == Some(*n) || number == *port)
    };
    let port =
        server.ports.iter().flatten().find(|port| taken(port.name.as_deref(), port.container_port));
    if let Some(port) = port {
        let name = port.name.clone().unwrap_or_else(|| port.container_port.to_string());
        let [http, metrics] = SERVER_PORTS.map(|(name, number)| format!("{name} ({number})"));
        let why = format!(
            "the ports {http} and {metrics} are those that gateways and the operator ask; choose another name and number"
        );
        return Some((format!(".ports[{name}]"), why));
    }
    if let Some(own) = server.termination_message_path.as_ref() {
        return Some((
            ".terminationMessagePath".to_owned(),
            format!("{set}, who reads there why it ended; take {own} out"),
        ));
    }
    let probes =
        [("livenessProbe", &server.liveness_probe), ("readinessProbe", &server.readiness_probe)];
    let handled = probes.into_iter().find(|(_, probe)| probe.as_ref().is_some_and(has_handler));
    handled.map(|(name, _)| {
        (
            format!(".{name}"),
            "how the model server is asked is Slipway's; give only its times and thresholds"
                .to_owned(),
        )
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn problem(template: Value) -> Option<String> {
        let spec = json!({ "model": { "uri": "https://store/m.onnx" }, "template": template });
        find_template_problem(&serde_json::from_value(spec).unwrap())
    }

    #[test]
    fn what_the_promises_need_is_refused_by_the_name_of_its_field() {
        let server = |fields: Value| {
            let mut server = json!({ "name": "server" });
            server.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            json!({ "spec": { "containers": [server] } })
        };
        let step = |name: &str| json!({ "spec": { "initContainers": [{ "name": name, "image": "x:1" }] } });
        let label = "ml.slipway.dev/revision";
        for (template, field) in [
            (
                json!({ "metadata": { "labels": { label: "x" } } }),
                "metadata.labels[ml.slipway.dev/revision]",
            ),
            (json!({ "spec": { "restartPolicy": "Never" } }), "spec.restartPolicy"),
            (
                json!({ "spec": { "terminationGracePeriodSeconds": 39 } }),
                "spec.terminationGracePeriodSeconds",
            ),
            (json!({ "spec": { "volumes": [{ "name": "claim" }] } }), "spec.volumes[claim]"),
            (
                json!({ "spec": { "containers": [{ "name": "proxy" }] } }),
                "spec.containers[proxy].image",
            ),
            (
                json!({ "spec": { "containers": [{ "name": "worker", "image": "x:1" }] } }),
                "spec.containers[worker]",
            ),
            (step("fetch"), "spec.initContainers[fetch]"),
            (step("server"), "spec.initContainers[server]"),
            (
                server(json!({ "env": [{ "name": "SLIPWAY_REVISION" }] })),
                "spec.containers[server].env[SLIPWAY_REVISION]",
            ),
            (server(json!({ "command": ["x"] })), "spec.containers[server].command"),
            (
                server(json!({ "ports": [{ "name": "http", "containerPort": 1 }] })),
                "spec.containers[server].ports[http]",
            ),
            (
                server(json!({ "args": ["--threads=2", "--model-digest=sha256:0"] })),
                "spec.containers[server].args[--model-digest=sha256:0]",
            ),
            (
                server(json!({ "args": ["--queue-name", "other/ns"] })),
                "spec.containers[server].args[--queue-name]",
            ),
            (
                server(json!({ "ports": [{ "containerPort": 9090 }] })),
                "spec.containers[server].ports[9090]",
            ),
            (
                server(json!({ "terminationMessagePath": "/x" })),
                "spec.containers[server].terminationMessagePath",
            ),
            (
                server(json!({ "livenessProbe": { "exec": {} } })),
                "spec.containers[server].livenessProbe",
            ),
        ] {
            let found =
                problem(template.clone()).unwrap_or_else(|| panic!("{template} is let through"));
            assert!(found.starts_with(&format!("spec.template.{field}: ")), "{found}");
        }
    }

    #[test]
    fn what_they_do_not_need_is_not() {
        for template in [
            json!({}),
            json!({ "metadata": { "labels": { "app.kubernetes.io/version": "1" }, "annotations": { "prometheus.io/port": "1" } } }),
            json!({ "spec": { "terminationGracePeriodSeconds": 40, "restartPolicy": "Always", "hostIPC": true } }),
            json!({ "spec": { "volumes": [{ "name": "tmp", "emptyDir": {} }, { "name": "models", "emptyDir": {} }] } }),
            json!({ "spec": { "containers": [{ "name": "server", "image": "own:1", "command": ["x"],
                "readinessProbe": { "periodSeconds": 5 }, "ports": [{ "name": "debug", "containerPort": 6060 }],
                "startupProbe": { "httpGet": { "port": 8080 } } }] } }),
        ] {
            assert_eq!(problem(template), None);
        }
    }
}
