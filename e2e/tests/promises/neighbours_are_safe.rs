//! Changes of a neighbour have no effect: while another ModelDeployment of the namespace is
//! created, claims the same host and the same model name, is broken and is deleted, no request is
//! lost at a declared host, at an undeclared host, or over gRPC with the name of the model.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::ensure;
use serde_json::Value;
use slipway_contracts::headers;
use slipway_crds::labels::MODEL_DEPLOYMENT;
use slipway_crds::v1alpha1::{ModelDeployment, ModelDeploymentStatus};
use slipway_e2e::world::{self, PODS_TIMEOUT, TestWorld, infer_request};
use slipway_oip::inference as pb;
use slipway_oip::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use slipway_oip::inference::model_infer_request::InferInputTensor;
use tokio::task::JoinHandle;

const DECLARED: &str = "digits.example.org";
const UNDECLARED: &str = "models.example.org";

fn request() -> pb::ModelInferRequest {
    let contents = pb::InferTensorContents { fp32_contents: vec![1.0; 64], ..Default::default() };
    let input = InferInputTensor {
        name: "X".into(),
        datatype: "FP32".into(),
        shape: vec![1, 64],
        contents: Some(contents),
        ..Default::default()
    };
    pb::ModelInferRequest { model_name: "digits".into(), inputs: vec![input], ..Default::default() }
}

/// Sends gRPC calls to an undeclared host, one after the other until `stop`; returns their number
/// and the failures.
async fn calls(
    world: &TestWorld,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<JoinHandle<(u64, Vec<String>)>> {
    let endpoint = tonic::transport::Endpoint::from_shared(world.service_url("digits", 80).await?)?;
    let channel = endpoint.origin(format!("http://{UNDECLARED}").parse()?).connect().await?;
    let (mut client, stop) = (GrpcInferenceServiceClient::new(channel), Arc::clone(stop));
    Ok(tokio::spawn(async move {
        let (mut calls, mut failures) = (0_u64, Vec::new());
        let mut due = tokio::time::interval(std::time::Duration::from_millis(5));
        while !stop.load(Ordering::Relaxed) && failures.len() <= 5 {
            due.tick().await;
            calls += 1;
            match client.model_infer(request()).await {
                Ok(answer) if answer.get_ref().model_name == "digits" => {}
                other => failures.push(format!("{other:?}")),
            }
        }
        (calls, failures)
    }))
}

/// The answers that clients of `digits` receive at every kind of host, without the parts that
/// differ from answer to answer.
async fn picture(world: &TestWorld) -> anyhow::Result<Vec<String>> {
    let base = world.service_url("digits", 80).await?;
    let mut seen = Vec::new();
    for host in ["digits", DECLARED, UNDECLARED, "localhost:8080", "10.0.0.7:8080"] {
        for path in [
            "/v2",
            "/v2/health/ready",
            "/v2/models/digits",
            "/v2/models/digits/ready",
            "/v2/jobs/none",
            "/v2/models/none",
        ] {
            let answer = world.http.get_with_host(&format!("{base}{path}"), host).await?;
            seen.push(format!(
                "{host}{path}: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ));
        }
        let row: Vec<f64> = vec![1.0; 64];
        let answer = world
            .http
            .post(&format!("{base}/v2/models/digits/infer"), Some(host), &infer_request(&row))
            .await?;
        let body: Value = answer.json()?;
        let revision = answer.header(headers::REVISION);
        seen.push(format!(
            "{host} infer: {} {revision} {}",
            answer.status, body["outputs"][0]["data"]
        ));
    }
    Ok(seen)
}

async fn conflicted(world: &TestWorld, reason: &str, words: &[&str]) -> anyhow::Result<()> {
    let told = |status: &ModelDeploymentStatus| {
        let said =
            status.conditions.iter().find(|it| it.type_ == "Conflicted").ok_or("no condition")?;
        let all = said.reason == reason && words.iter().all(|word| said.message.contains(word));
        if all { Ok(()) } else { Err(format!("{}: {}", said.reason, said.message)) }
    };
    world.wait_for_status("b", "the conflict to be told", PODS_TIMEOUT, told).await.map(drop)
}

/// Rolls `b` out with an invalid model, without a stable revision to fall back to.
async fn broken(world: &TestWorld, b: &ModelDeployment) -> anyhow::Result<()> {
    let mut object = b.clone();
    object.spec.model.version = Some("missing".into());
    object.spec.model.uri = "http://model-store/digits/v9/model.onnx".into();
    world.apply(&object).await?;
    let failed = |status: &ModelDeploymentStatus| match world::find_condition(status, "Ready") {
        Some(("False", "ModelLoadFailed")) => Ok(()),
        _ => Err(world::describe_status(status)),
    };
    world.wait_for_status("b", "b to be broken", PODS_TIMEOUT, failed).await.map(drop)
}

/// Deletes `b` with all its objects.
async fn go(world: &TestWorld) -> anyhow::Result<()> {
    world.cluster.kubectl(["delete", "modeldeployment", "b", "-n", &world.namespace]).await?;
    let selector = format!("{MODEL_DEPLOYMENT}=b");
    let gone = || async {
        let left = world.object_names("replicasets,services,poddisruptionbudgets", &selector).await;
        let left = left.map_err(|error| error.to_string())?;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    };
    Ok(world.cluster.wait_for(&world.namespace, "b to be gone", PODS_TIMEOUT, gone).await?)
}

/// Creates and deletes `b` in every way that could cause harm; after each, the answers of `digits`
/// must be unchanged.
async fn neighbour(world: &TestWorld, alone: &[String]) -> anyhow::Result<()> {
    let same = async |what: &str| -> anyhow::Result<()> {
        let now = picture(world).await?;
        ensure!(now == alone, "{what}: {now:#?}\nalone: {alone:#?}");
        Ok(())
    };
    let mut b = world.quick_example("digits/v1.yaml")?;
    b.metadata.name = Some("b".into());
    b.spec.model.name = Some("b".into());
    b.spec.replicas = Some(1);
    world.start_model(&b).await?;
    same("b has come").await?;
    b.spec.traffic.hosts = vec![DECLARED.into(), "b.example.org".into()];
    world.apply(&b).await?;
    conflicted(world, "HostnameConflict", &[DECLARED, "ModelDeployment digits"]).await?;
    same("b declares the same host").await?;
    let base = world.service_url("b", 80).await?;
    let own = world.http.get_with_host(&format!("{base}/v2/models/b"), "b.example.org").await?;
    ensure!(own.status == 200, "its other host serves: {own:?}");

    go(world).await?;
    same("b has gone").await?;
    b.spec.traffic.hosts.clear();
    b.spec.model.name = Some("digits".into());
    world.start_model(&b).await?;
    conflicted(world, "ModelNameConflict", &["spec.model.name", "ModelDeployment digits"]).await?;
    same("b has the same model name").await?;
    let base = world.service_url("b", 80).await?;
    let own = world.http.get_with_host(&format!("{base}/v2/models/digits"), "b").await?;
    ensure!(own.status == 200, "its Service serves: {own:?}");

    go(world).await?;
    broken(world, &b).await?;
    same("b is broken").await?;
    go(world).await?;
    same("b has gone for good").await
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn neighbours_are_safe() -> anyhow::Result<()> {
    world::run_promise("neighbours", async |world| {
        let mut digits = world.quick_example("digits/v2.yaml")?;
        digits.spec.traffic.hosts = vec![DECLARED.into()];
        world.start_model(&digits).await?;
        let elsewhere = TestWorld { generator: "loadgen-elsewhere".into(), ..world.clone() };
        world.start_load_as("digits", DECLARED, 40).await?;
        elsewhere.start_load_as("digits", UNDECLARED, 40).await?;
        let stop = Arc::new(AtomicBool::new(false));
        let calls = calls(&world, &stop).await?;
        let alone = picture(&world).await?;
        let answered = |it: &&String| it.contains(": 200 ");
        // Of seven questions at each of five hosts, those about a job and about another model have
        // no answer.
        ensure!(alone.iter().filter(answered).count() == 25, "{alone:#?}");

        let outcome = neighbour(&world, &alone).await;
        stop.store(true, Ordering::Relaxed);
        let (count, failures) = calls.await?;
        outcome?;
        ensure!(failures.is_empty(), "{} of {count} calls failed: {failures:?}", failures.len());
        ensure!(count > 100, "only {count} calls");
        for generator in [&world, &elsewhere] {
            let account = generator.finish_load().await?;
            ensure!(account.failed == 0 && account.answered > 100, "{account:?}");
        }
        let status = world.status("digits").await.map_err(anyhow::Error::msg)?;
        let held = world::find_condition(&status, "Conflicted");
        ensure!(held.is_none(), "{held:?}");
        Ok(())
    })
    .await
}
