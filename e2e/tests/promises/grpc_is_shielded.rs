//! gRPC is handled like HTTP: split, shielded from a failing candidate, and counted; no call fails.

use anyhow::ensure;
use slipway_e2e::world;
use slipway_oip::inference as pb;
use slipway_oip::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use slipway_oip::inference::model_infer_request::InferInputTensor;

/// Held-out digits: the failing version fails for almost every second one.
fn digits(world: &world::TestWorld) -> anyhow::Result<Vec<Vec<f32>>> {
    let csv = world.example("digits/heldout.csv")?;
    let pixels = |line: &str| -> anyhow::Result<Vec<f32>> {
        let pixels: Vec<f32> = line.split(',').skip(1).map(str::parse).collect::<Result<_, _>>()?;
        ensure!(pixels.len() == 64, "{} pixels", pixels.len());
        Ok(pixels)
    };
    csv.lines().skip(1).map(pixels).collect()
}

fn request(digit: &[f32]) -> pb::ModelInferRequest {
    let contents = pb::InferTensorContents { fp32_contents: digit.to_vec(), ..Default::default() };
    let input = InferInputTensor {
        name: "X".into(),
        datatype: "FP32".into(),
        shape: vec![1, 64],
        contents: Some(contents),
        ..Default::default()
    };
    pb::ModelInferRequest { model_name: "digits".into(), inputs: vec![input], ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs the cluster: make e2e"]
async fn grpc_is_shielded() -> anyhow::Result<()> {
    world::run_promise("grpc", async |world| {
        world.start_model(&world.quick_example("digits/v2.yaml")?).await?;
        let endpoint =
            tonic::transport::Endpoint::from_shared(world.service_url("digits", 80).await?)?;
        // The gateway routes by the name of the model's Service.
        let channel = endpoint.origin("http://digits".parse()?).connect().await?;
        let mut client = GrpcInferenceServiceClient::new(channel);
        let digits = digits(&world)?;
        let load = tokio::spawn(async move {
            let (mut calls, mut failures) = (0_u64, Vec::new());
            for digit in digits.iter().cycle() {
                calls += 1;
                match client.model_infer(request(digit)).await {
                    Ok(answer)
                        if answer.get_ref().outputs.iter().any(|output| output.name == "label") => {
                    }
                    other => failures.push(format!("{other:?}")),
                }
                tokio::task::yield_now().await;
                if calls >= 200_000
                    || failures.len() > 5
                    || STOP.load(std::sync::atomic::Ordering::Relaxed)
                {
                    break;
                }
            }
            (calls, failures)
        });
        world.apply(&world.quick_example("digits/v4-errors.yaml")?).await?;
        let taken_back = world.wait_aborted("digits", "v4-errors").await;
        STOP.store(true, std::sync::atomic::Ordering::Relaxed);
        let (calls, failures) = load.await?;
        taken_back?;
        ensure!(failures.is_empty(), "{} of {calls} calls failed: {failures:?}", failures.len());
        ensure!(calls > 100, "only {calls} calls");
        Ok(())
    })
    .await
}

static STOP: std::sync::atomic::AtomicBool = std::sync::atomic::AtomicBool::new(false);
