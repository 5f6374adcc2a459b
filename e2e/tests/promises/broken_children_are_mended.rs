//! Changes that a user makes to Slipway's objects are reverted within ten seconds and reported. A
//! ModelDeployment that is deleted without its children and applied again adopts them, and no
//! request is lost meanwhile.

use std::time::Duration;

use anyhow::ensure;
use slipway_crds::v1alpha1::ModelDeploymentStatus;
use slipway_e2e::world::{self, PODS_TIMEOUT, TestWorld};

/// The time limit for reverting a change.
const SOON: Duration = Duration::from_secs(10);

/// Changes an object as a user would, and waits until the change is reverted and reported.
async fn breaks(
    world: &TestWorld,
    object: &str,
    change: &[&str],
    shows: &str,
    told: &str,
) -> anyhow::Result<()> {
    let look = async || {
        let path = format!("jsonpath={shows}");
        let text =
            world.cluster.kubectl(["get", object, "-n", &world.namespace, "-o", &path]).await;
        text.map_err(|error| error.to_string())
    };
    let before = look().await.map_err(anyhow::Error::msg)?;
    ensure!(!before.is_empty(), "{object} shows nothing at {shows}");
    let in_namespace = change.iter().copied().chain(["-n", &world.namespace]);
    world.cluster.kubectl(in_namespace).await?;
    let mended = || async {
        let now = look().await?;
        if now == before { Ok(()) } else { Err(format!("{object} has {now} and had {before}")) }
    };
    world
        .cluster
        .wait_for(&world.namespace, &format!("{object} to be put back"), SOON, mended)
        .await?;
    let said = || async {
        let only = "--field-selector=reason=ChildRestored,involvedObject.name=digits";
        let events =
            ["get", "events", "-n", &world.namespace, only, "-o", "jsonpath={.items[*].message}"];
        let messages = world.cluster.kubectl(events).await.map_err(|error| error.to_string())?;
        if messages.contains(told) { Ok(()) } else { Err(format!("the events say: {messages}")) }
    };
    Ok(world
        .cluster
        .wait_for(&world.namespace, &format!("an Event about {object}"), SOON, said)
        .await?)
}

async fn pods(world: &TestWorld) -> anyhow::Result<Vec<String>> {
    world.object_names("pods", "ml.slipway.dev/modeldeployment=digits").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn broken_children_are_mended() -> anyhow::Result<()> {
    world::run_promise("broken-children", async |world| {
        let object = world.quick_example("digits/v1.yaml")?;
        let revision = world.start_model(&object).await?;
        // Requests cannot be answered without a gateway, or while the address leads elsewhere, so
        // there is no load yet.
        let none = ["scale", "deployment/slipway-gateway", "--replicas=0"];
        // Writes through the scale subresource are not in managedFields, so the message names no
        // author.
        let gateway = "Deployment slipway-gateway: spec.replicas was changed";
        breaks(&world, "deployment/slipway-gateway", &none, "{.spec.replicas}", gateway).await?;
        let elsewhere =
            ["patch", "service/digits", "-p", r#"{"spec":{"selector":{"app":"theirs"}}}"#];
        let address = "Service digits: spec.selector was changed by kubectl-patch";
        breaks(&world, "service/digits", &elsewhere, "{.spec.selector}", address).await?;
        world.wait_deployment_ready("slipway-gateway").await?;
        world
            .wait_for_status("digits", "all to be ready again", PODS_TIMEOUT, world::check_ready)
            .await?;

        world.start_load("digits", 100).await?;
        let nobody =
            ["patch", "rolebinding/slipway-gateway", "--type=merge", "-p", r#"{"subjects":[]}"#];
        // A field that does not exist has no owner in managedFields.
        let rights = "RoleBinding slipway-gateway: subjects was changed";
        breaks(&world, "rolebinding/slipway-gateway", &nobody, "{.subjects}", rights).await?;
        let removed = "PodDisruptionBudget digits was removed";
        breaks(&world, "pdb/digits", &["delete", "pdb/digits"], "{.spec.maxUnavailable}", removed)
            .await?;

        let before = pods(&world).await?;
        let orphan = ["delete", "mdep/digits", "--cascade=orphan", "-n", &world.namespace];
        world.cluster.kubectl(orphan).await?;
        world.apply(&object).await?;
        let taken_back = |status: &ModelDeploymentStatus| {
            world::check_ready(status)?;
            let quiet = status.rollout.is_none() && status.history.is_empty();
            let same = world::stable_revision(status) == revision;
            if quiet && same { Ok(()) } else { Err(world::describe_status(status)) }
        };
        world
            .wait_for_status("digits", "the orphans to be taken back", PODS_TIMEOUT, taken_back)
            .await?;
        let controlled = || async {
            let owners =
                "jsonpath={range .items[*]}{.metadata.ownerReferences[0].name}{\"\\n\"}{end}";
            let all = [
                "get",
                "rs,svc,pdb",
                "-n",
                &world.namespace,
                "-l",
                "ml.slipway.dev/modeldeployment=digits",
                "-o",
                owners,
            ];
            let names = world.cluster.kubectl(all).await.map_err(|error| error.to_string())?;
            if names.lines().all(|name| name == "digits") {
                Ok(())
            } else {
                Err(format!("owners: {names:?}"))
            }
        };
        world
            .cluster
            .wait_for(&world.namespace, "all to be ours", PODS_TIMEOUT, controlled)
            .await?;
        let account = world.finish_load().await?;
        ensure!(pods(&world).await? == before, "pods were replaced: {before:?}");
        ensure!(account.revision(&revision).answered > 0, "{account:?}");
        Ok(())
    })
    .await
}
