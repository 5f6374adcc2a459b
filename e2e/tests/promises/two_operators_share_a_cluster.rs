//! Of two operators that could both manage a namespace one does, and the other leaves it alone,
//! until a user hands the namespace over: no object is written by both, and no request is lost.

use std::time::Duration;

use anyhow::ensure;
use serde_json::Value;
use slipway_cluster::cluster::ClusterHandle;
use slipway_crds::v1alpha1::AnalysisMode;
use slipway_e2e::product::{self, NAMESPACE, RELEASE};
use slipway_e2e::world::{self, ROLLOUT_TIMEOUT, TestWorld};

const LEASE: &str = "slipway-modeldeployments";
/// An annotation of gateway pods, in which the second operator's settings differ.
const MARK: &str = "example.org/second";
/// Time limit for the rollout of a gateway. The first operator updates gateways in turn, and that
/// of another promise may take two minutes.
const TURN: Duration = Duration::from_secs(300);

/// Installs another release for one namespace, with the values of the first one and another
/// template of gateways.
async fn install(cluster: &ClusterHandle, release: &str, namespace: &str) -> anyhow::Result<()> {
    let change = |values: &mut Value| {
        values["gateway"]["template"]["metadata"]["annotations"][MARK] = "yes".into();
        values["gateway"]["update"] = "Immediate".into();
    };
    Ok(product::install_scoped_release(cluster, release, namespace, change).await?)
}

async fn gateway(world: &TestWorld) -> Result<Value, String> {
    let get = ["get", "deployment", "slipway-gateway", "-n", &world.namespace, "-o", "json"];
    let text = world.cluster.kubectl(get).await.map_err(|error| error.to_string())?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn generation(gateway: &Value) -> i64 {
    gateway["metadata"]["generation"].as_i64().unwrap_or_default()
}

/// Waits until the gateway has the settings of the second operator, or of the first, and all of its
/// pods use them.
async fn rolled(world: &TestWorld, by_the_second: bool) -> anyhow::Result<i64> {
    let settled = || async {
        let gateway = gateway(world).await?;
        let marked = gateway["spec"]["template"]["metadata"]["annotations"].get(MARK).is_some();
        let (status, all) = (&gateway["status"], &gateway["spec"]["replicas"]);
        let seen = status["observedGeneration"] == gateway["metadata"]["generation"];
        let done = ["replicas", "updatedReplicas", "readyReplicas"]
            .iter()
            .all(|count| status[*count] == *all);
        let wanted = marked == by_the_second && seen && done;
        if wanted { Ok(generation(&gateway)) } else { Err(format!("marked: {marked}, {status}")) }
    };
    Ok(world
        .cluster
        .wait_for(&world.namespace, "the gateway to be rolled out", TURN, settled)
        .await?)
}

async fn hand_over(world: &TestWorld, holder: &str) -> anyhow::Result<()> {
    let patch = format!(r#"{{"spec":{{"holderIdentity":"{holder}"}}}}"#);
    let arguments =
        ["patch", "lease", LEASE, "-n", &world.namespace, "--type", "merge", "-p", &patch];
    world.cluster.kubectl(arguments).await?;
    Ok(())
}

/// Rolls out another version without steps: this test is about which operator does it.
async fn ship(world: &TestWorld, version: &str) -> anyhow::Result<()> {
    let mut object = world.quick_example("digits/v2.yaml")?;
    object.spec.model.version = Some(version.to_owned());
    object.spec.strategy.canary =
        Some(serde_json::from_value(serde_json::json!({"steps": [{"setWeight": 100}]}))?);
    (object.spec.analysis.mode, object.spec.analysis.gates) = (AnalysisMode::Disabled, None);
    world.apply(&object).await?;
    world.wait_promoted("digits", version).await.map(drop)
}

async fn told(world: &TestWorld) -> anyhow::Result<()> {
    let events = || async {
        let get = [
            "get",
            "events",
            "-n",
            &world.namespace,
            "--field-selector",
            "reason=OtherOperator",
            "-o",
            "name",
        ];
        let found = world.cluster.kubectl(get).await.map_err(|error| error.to_string())?;
        if found.trim().is_empty() { Err("no Event".to_owned()) } else { Ok(()) }
    };
    Ok(world
        .cluster
        .wait_for(&world.namespace, "the second operator to say who acts", ROLLOUT_TIMEOUT, events)
        .await?)
}

async fn shared(world: &TestWorld, second: &str) -> anyhow::Result<()> {
    told(world).await?;
    let before = rolled(world, false).await?;
    ship(world, "v2").await?;
    ensure!(
        rolled(world, false).await? == before,
        "the gateway was written although nothing of it changed"
    );

    // As the Event recommends: namespace and name of the Lease of the release.
    hand_over(world, &format!("{second}/{second}-slipway")).await?;
    let handed = rolled(world, true).await?;
    ship(world, "v3").await?;
    ensure!(
        rolled(world, true).await? == handed,
        "the first operator wrote although the second one looks after the namespace"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn two_operators_share_a_cluster() -> anyhow::Result<()> {
    world::run_promise("shared", async |world| {
        let namespace = world.cluster.temp_namespace("second").await?;
        let second = namespace.name().to_owned();
        world.start_model(&world.quick_example("digits/v1.yaml")?).await?;
        world.start_load("digits", 60).await?;
        install(&world.cluster, &second, &world.namespace).await?;
        let outcome = shared(&world, &second).await;
        product::uninstall_scoped_release(&world.cluster, &second).await?;
        outcome?;
        // No operator manages the namespace now; everything keeps serving. After half an hour the
        // first one would take it over.
        hand_over(&world, &format!("{NAMESPACE}/{RELEASE}")).await?;
        rolled(&world, false).await?;
        world.finish_load().await?;
        namespace.delete().await?;
        Ok(())
    })
    .await
}
