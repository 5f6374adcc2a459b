//! `kubectl slipway restart` replaces the pods one at a time, without a rollout and without a lost
//! request. A newer image of the model server reaches the pods by this, and not by the upgrade of
//! the operator.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;

use anyhow::{bail, ensure};
use futures::TryStreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::product;
use slipway_e2e::world::{self, PODS_TIMEOUT, ROLLOUT_TIMEOUT, TestWorld};

/// The pods of the model.
const SELECTOR: &str = "app.kubernetes.io/component=runtime,ml.slipway.dev/modeldeployment=digits";
const REPLICAS: usize = 3;
/// Longest duration of a watch in seconds: the client accepts no more, and a restart ends sooner.
const WATCH: u32 = 290;

fn pods(world: &TestWorld) -> Api<Pod> {
    Api::namespaced(world.cluster.client(), &world.namespace)
}

fn serves(pod: &Pod) -> bool {
    let conditions =
        pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|it| it.type_ == "Ready" && it.status == "True")
}

/// Watches each change of a pod, in order, and returns an error when more than one does not serve.
async fn all_but_one_serve(world: &TestWorld) -> anyhow::Result<Infallible> {
    let list = pods(world).list(&ListParams::default().labels(SELECTOR)).await?;
    let version = list.metadata.resource_version.clone().unwrap_or_default();
    let mut all: BTreeMap<String, bool> =
        list.iter().map(|pod| (pod.name_any(), serves(pod))).collect();
    let params = WatchParams::default().labels(SELECTOR).timeout(WATCH);
    let mut events = pin!(pods(world).watch(&params, &version).await?);
    while let Some(event) = events.try_next().await? {
        match event {
            WatchEvent::Added(pod) | WatchEvent::Modified(pod) => {
                all.insert(pod.name_any(), serves(&pod));
            }
            WatchEvent::Deleted(pod) => {
                all.remove(&pod.name_any());
            }
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(error) => bail!("the watch of pods: {error}"),
        }
        let serving = all.values().filter(|serves| **serves).count();
        ensure!(serving + 1 >= REPLICAS, "{serving} pods serve: {all:?}");
    }
    bail!("the watch of pods has ended")
}

/// Names of the pods that are not terminating, and the images of their model servers.
async fn here(world: &TestWorld) -> anyhow::Result<(BTreeSet<String>, BTreeSet<String>)> {
    let (mut names, mut images) = (BTreeSet::new(), BTreeSet::new());
    for pod in pods(world).list(&ListParams::default().labels(SELECTOR)).await? {
        if pod.metadata.deletion_timestamp.is_none() {
            names.insert(pod.name_any());
            images.extend(
                pod.spec.into_iter().flat_map(|spec| spec.containers).filter_map(|it| it.image),
            );
        }
    }
    Ok((names, images))
}

/// Runs the restart as a user who may only edit.
async fn restart(world: &TestWorld) -> anyhow::Result<()> {
    let arguments = ["restart", "digits", "-n", &world.namespace];
    let told = world.cluster.run_plugin_as("ed", arguments).await?;
    ensure!(told.contains("pods that were made before are replaced one at a time"), "{told}");
    Ok(())
}

/// Restarts, and returns the names and images of the pods that exist afterwards.
async fn restarted(world: &TestWorld) -> anyhow::Result<BTreeSet<String>> {
    let (before, _) = here(world).await?;
    let (status, begun) =
        (world.status("digits").await.map_err(anyhow::Error::msg)?, Timestamp::now());
    let replaced = async {
        restart(world).await?;
        let over = |status: &ModelDeploymentStatus| {
            let restarted = status
                .restarted_time
                .as_ref()
                .is_some_and(|it| it.0.as_second() >= begun.as_second());
            if restarted { world::check_ready(status) } else { Err(world::describe_status(status)) }
        };
        world.wait_for_status("digits", "the restart to be over", ROLLOUT_TIMEOUT, over).await
    };
    let after = tokio::select! {
        Err(broken) = all_but_one_serve(world) => return Err(broken),
        after = replaced => after?,
    };
    ensure!(
        (&after.traffic, &after.history) == (&status.traffic, &status.history),
        "{}",
        world::describe_status(&after)
    );
    ensure!(after.rollout.is_none(), "{}", world::describe_status(&after));
    let asked = world.model_deployments().get("digits").await?.spec.restart_time;
    ensure!(
        after.restarted_time == asked,
        "{:?} was asked for, {:?} is done",
        asked,
        after.restarted_time
    );
    let (names, images) = here(world).await?;
    ensure!(
        names.len() == REPLICAS && names.is_disjoint(&before),
        "{before:?} were replaced by {names:?}"
    );
    eprintln!(
        "{REPLICAS} pods were replaced in {:.1} s",
        (Timestamp::now() - begun).total(jiff::Unit::Second)?
    );
    Ok(images)
}

/// Sets the operator's image of the model server to another name of the same image: registries are
/// part of names, and Docker Hub may be omitted.
async fn install(world: &TestWorld, release: &str, short: bool) -> anyhow::Result<()> {
    let change = |values: &mut Value| {
        let repository = &mut values["runtime"]["image"]["repository"];
        let name =
            repository.as_str().unwrap_or_default().trim_start_matches("docker.io/").to_owned();
        *repository = if short { name } else { format!("docker.io/{name}") }.into();
    };
    Ok(product::install_scoped_release(&world.cluster, release, &world.namespace, change).await?)
}

/// Installs a separate operator for this namespace: the settings of an operator apply to all its
/// namespaces.
async fn reserve(world: &TestWorld, release: &str) -> anyhow::Result<()> {
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "slipway-modeldeployments"},
        "spec": {
            "holderIdentity": format!("{release}/{release}-slipway"), "leaseDurationSeconds": 1800,
            "renewTime": format!("{:.6}", Timestamp::now())
        }
    });
    world.cluster.apply(&world.namespace, &lease.to_string()).await?;
    for role in ["slipway-edit", "slipway-view"] {
        let of = format!("--clusterrole={role}");
        world
            .cluster
            .kubectl(["create", "rolebinding", role, &of, "--user=ed", "-n", &world.namespace])
            .await?;
    }
    install(world, release, false).await
}

async fn through(world: &TestWorld, release: &str) -> anyhow::Result<()> {
    reserve(world, release).await?;
    let mut object = world.quick_example("digits/v1.yaml")?;
    object.spec.replicas = Some(i32::try_from(REPLICAS)?);
    // This budget would allow replacing all pods at once, so the one-at-a-time order is due to the
    // restart.
    object.spec.disruption_budget.max_unavailable = IntOrString::String("100%".into());
    world.start_model(&object).await?;
    let whole = |status: &ModelDeploymentStatus| match &status.stable {
        Some(stable) if usize::try_from(stable.ready_replicas) == Ok(REPLICAS) => {
            world::check_ready(status)
        }
        _ => Err(world::describe_status(status)),
    };
    world.wait_for_status("digits", "all pods to be ready", PODS_TIMEOUT, whole).await?;
    world.start_load("digits", 60).await?;
    let long = restarted(world).await?;
    ensure!(long.iter().all(|image| image.starts_with("docker.io/")), "{long:?}");

    // The operator is upgraded with a newer image: this is reported, and no pod restarts.
    let before = here(world).await?;
    install(world, release, true).await?;
    let told = |status: &ModelDeploymentStatus| match world::find_condition(status, "OutdatedImage")
    {
        Some(("True", "ImageChanged")) => world::check_ready(status),
        _ => Err(world::describe_status(status)),
    };
    world.wait_for_status("digits", "the outdated image to be told", ROLLOUT_TIMEOUT, told).await?;
    ensure!(here(world).await? == before, "the upgrade of the operator replaced pods");
    let short = restarted(world).await?;
    ensure!(
        short == long.iter().map(|image| image["docker.io/".len()..].to_owned()).collect(),
        "images were {long:?} and are {short:?}"
    );
    let up_to_date =
        |status: &ModelDeploymentStatus| match world::find_condition(status, "OutdatedImage") {
            None => world::check_ready(status),
            Some(_) => Err(world::describe_status(status)),
        };
    world.wait_for_status("digits", "the image to be up to date", PODS_TIMEOUT, up_to_date).await?;
    world.finish_load().await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn restart_replaces_pods() -> anyhow::Result<()> {
    world::run_promise("restart", async |world| {
        let namespace = world.cluster.temp_namespace("operator").await?;
        let release = namespace.name().to_owned();
        let outcome = through(&world, &release).await;
        let gone = product::uninstall_scoped_release(&world.cluster, &release).await;
        outcome?;
        gone?;
        namespace.delete().await?;
        Ok(())
    })
    .await
}
