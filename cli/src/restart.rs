//! A restart: writes the current time to `spec.restartTime`. The operator does the rest. If Git
//! owns the spec, users set the field there instead.

use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use slipway_crds::v1alpha1::ModelDeployment;

use crate::command::{TargetArgs, connect_cluster};

/// Requests a restart, and prints how to watch it.
///
/// # Errors
/// When the API server rejects it.
pub(crate) fn run_restart(args: &TargetArgs) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(request_restart(args))
}

async fn request_restart(args: &TargetArgs) -> anyhow::Result<()> {
    let (client, namespace) = connect_cluster(args).await?;
    let api: Api<ModelDeployment> = Api::namespaced(client, &namespace);
    // The API has whole seconds, and so does the creation time of pods.
    let time = Timestamp::from_second(Timestamp::now().as_second())?.to_string();
    let body = json!({ "spec": { "restartTime": time } });
    let object = api.patch(&args.name, &PatchParams::default(), &Patch::Merge(body)).await?;
    println!("{}", restart_message(&args.name, &namespace, &time, &object));
    Ok(())
}

/// The result, what the restart waits for, and how to watch it.
fn restart_message(name: &str, namespace: &str, time: &str, object: &ModelDeployment) -> String {
    let rollout = object.status.as_ref().is_some_and(|status| status.candidate.is_some());
    let waits = if rollout { " when the rollout is over" } else { "" };
    format!(
        "modeldeployment/{name} restart: spec.restartTime is {time}; pods that were made before are replaced one at a time{waits}
watch it:    kubectl -n {namespace} get modeldeployment {name} -o wide --watch
wait for it: kubectl -n {namespace} wait modeldeployment/{name} --for=jsonpath='{{.status.restartedTime}}'={time} --timeout=30m"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_was_done_and_how_to_watch_it() {
        let mut object = json!({
            "apiVersion": "ml.slipway.dev/v1alpha1", "kind": "ModelDeployment", "metadata": { "name": "digits" },
            "spec": { "model": { "uri": "http://store/a" } }, "status": { "replicas": 1, "selector": "" }
        });
        let say = |object: &serde_json::Value| {
            let object: ModelDeployment = serde_json::from_value(object.clone()).unwrap();
            restart_message("digits", "team", "2026-01-01T00:00:00Z", &object)
        };
        let text = say(&object);
        assert!(text.contains("spec.restartTime is 2026-01-01T00:00:00Z"), "{text}");
        assert!(text.contains("{.status.restartedTime}'=2026-01-01T00:00:00Z"), "{text}");
        assert!(!text.contains("rollout"), "{text}");
        let revision = json!({ "revision": "0123456789", "version": "v2", "weight": "5%", "replicas": 1, "readyReplicas": 1 });
        object["status"]["candidate"] = revision;
        assert!(say(&object).contains("when the rollout is over"));
    }
}
