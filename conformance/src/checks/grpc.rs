//! Checks of the protocol over gRPC.

use anyhow::Context as _;
use serde_json::Value;
use slipway_oip::health::HealthCheckRequest;
use slipway_oip::health::health_check_response::ServingStatus;
use slipway_oip::health::health_client::HealthClient;
use slipway_oip::inference as pb;
use slipway_oip::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use slipway_oip::inference::model_infer_request::InferRequestedOutputTensor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};

use super::infer::{ensure_same_outputs, reference_outputs};
use crate::model::{ModelMetadata, SampleInput, raw_values, typed_values};
use crate::report::CheckGroup::{Extension, Recommended, Required};
use crate::rest::RestClient;
use crate::{CheckRunner, CheckVerdict, Stop, ensure, skip_check};

type GrpcClient = GrpcInferenceServiceClient<Channel>;

pub(crate) async fn check_grpc(
    runner: &mut CheckRunner,
    url: &str,
    rest: &RestClient,
    model: &ModelMetadata,
) {
    let mut channel = None;
    let connect = async {
        let endpoint = Endpoint::from_shared(url.to_owned()).context("the address is none")?;
        channel = Some(endpoint.connect().await.context("no connection")?);
        Ok(())
    };
    runner.check(Required, "grpc.connect", "the server takes connections", connect).await;
    let Some(channel) = channel else { return };
    // The specification does not limit the size of answers.
    let client = GrpcClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
    check_grpc_basics(runner, client.clone(), model).await;
    check_grpc_inference(runner, client.clone(), rest, model).await;
    check_grpc_errors(runner, client.clone(), model).await;
    check_grpc_extensions(runner, client, HealthClient::new(channel), model).await;
}

fn infer_request(model: &ModelMetadata, typed: bool) -> pb::ModelInferRequest {
    let samples = SampleInput::for_model(model);
    pb::ModelInferRequest {
        model_name: model.name.clone(),
        inputs: samples.iter().map(|s| s.to_grpc_input(typed)).collect(),
        raw_input_contents: if typed {
            Vec::new()
        } else {
            samples.iter().map(SampleInput::to_raw_bytes).collect()
        },
        ..Default::default()
    }
}

fn typed_request(model: &ModelMetadata) -> Result<pb::ModelInferRequest, Stop> {
    if model.has_typed_form() {
        Ok(infer_request(model, true))
    } else {
        skip_check("the model has FP16 or BF16, which has no typed form")
    }
}

/// The outputs of an answer in either form.
fn grpc_outputs(answer: &pb::ModelInferResponse) -> Result<Vec<(String, Vec<Value>)>, Stop> {
    let raw = !answer.raw_output_contents.is_empty();
    ensure!(
        !raw || answer.raw_output_contents.len() == answer.outputs.len(),
        "{} raw contents for {} outputs",
        answer.raw_output_contents.len(),
        answer.outputs.len()
    );
    let mut found = Vec::new();
    for (i, output) in answer.outputs.iter().enumerate() {
        ensure!(
            !raw || output.contents.is_none(),
            "output {:?} has contents beside the raw ones",
            output.name
        );
        let read = match answer.raw_output_contents.get(i) {
            Some(blob) => raw_values(&output.datatype, blob).unwrap_or_default(),
            None => output.contents.as_ref().map(typed_values).unwrap_or_default(),
        };
        found.push((output.name.clone(), read));
    }
    Ok(found)
}

async fn check_grpc_basics(
    runner: &mut CheckRunner,
    mut client: GrpcClient,
    model: &ModelMetadata,
) {
    let live = async {
        ensure!(
            client.server_live(pb::ServerLiveRequest {}).await?.into_inner().live,
            "live is false"
        );
        ensure!(
            client.server_ready(pb::ServerReadyRequest {}).await?.into_inner().ready,
            "ready is false"
        );
        Ok(())
    };
    runner.check(Required, "grpc.health", "ServerLive and ServerReady are true", live).await;
    let ready = async {
        let of = pb::ModelReadyRequest { name: model.name.clone(), version: String::new() };
        ensure!(client.model_ready(of).await?.into_inner().ready, "ready is false");
        Ok(())
    };
    runner.check(Required, "grpc.model.ready", "ModelReady is true", ready).await;
    let server = async {
        let about = client.server_metadata(pb::ServerMetadataRequest {}).await?.into_inner();
        ensure!(!about.name.is_empty(), "name is empty");
        Ok(())
    };
    runner.check(Required, "grpc.server.metadata", "ServerMetadata has a name", server).await;
    let metadata = async {
        let of = pb::ModelMetadataRequest { name: model.name.clone(), version: String::new() };
        let found = client.model_metadata(of).await?.into_inner();
        ensure!(found.name == model.name, "name is {:?}", found.name);
        for (ours, theirs) in [(&model.inputs, &found.inputs), (&model.outputs, &found.outputs)] {
            let same = ours.len() == theirs.len()
                && ours.iter().zip(theirs).all(|(a, b)| {
                    (&a.name, &a.datatype, &a.shape) == (&b.name, &b.datatype, &b.shape)
                });
            ensure!(same, "REST says {ours:?}, gRPC {theirs:?}");
        }
        Ok(())
    };
    runner
        .check(Required, "grpc.model.metadata", "ModelMetadata is what REST says", metadata)
        .await;
}

async fn check_grpc_inference(
    runner: &mut CheckRunner,
    mut client: GrpcClient,
    rest: &RestClient,
    model: &ModelMetadata,
) {
    let typed = async {
        let answer = client.model_infer(typed_request(model)?).await?.into_inner();
        ensure!(answer.model_name == model.name, "model_name is {:?}", answer.model_name);
        ensure_same_outputs(&grpc_outputs(&answer)?, &reference_outputs(rest, model).await?)
    };
    runner.check(Required, "grpc.infer.typed", "typed contents give what REST gives", typed).await;
    let raw = async {
        let answer = client.model_infer(infer_request(model, false)).await?.into_inner();
        let found = grpc_outputs(&answer)?;
        ensure!(found.len() == model.outputs.len(), "{} outputs", found.len());
        ensure_same_outputs(&found, &reference_outputs(rest, model).await?)
    };
    runner.check(Required, "grpc.infer.raw", "raw contents give what REST gives", raw).await;
    let id = async {
        let request =
            pb::ModelInferRequest { id: "conformance-1".into(), ..infer_request(model, false) };
        let answer = client.model_infer(request).await?.into_inner();
        ensure!(answer.id == "conformance-1", "id is {:?}", answer.id);
        Ok(())
    };
    runner.check(Required, "grpc.infer.id", "the id of a request is echoed", id).await;
    let filter = async {
        let wanted = model.outputs.last().map(|s| s.name.clone()).unwrap_or_default();
        let outputs =
            vec![InferRequestedOutputTensor { name: wanted.clone(), ..Default::default() }];
        let answer = client
            .model_infer(pb::ModelInferRequest { outputs, ..infer_request(model, false) })
            .await?
            .into_inner();
        let names: Vec<_> = answer.outputs.iter().map(|o| o.name.as_str()).collect();
        ensure!(names == [wanted.as_str()], "asked for {wanted:?}, got {names:?}");
        Ok(())
    };
    runner
        .check(Required, "grpc.infer.outputs", "only the outputs that are asked for come", filter)
        .await;
    let form = async {
        let raw = client.model_infer(infer_request(model, false)).await?.into_inner();
        ensure!(!raw.raw_output_contents.is_empty(), "a raw request has a typed answer");
        Ok(())
    };
    runner.check(Recommended, "grpc.infer.form", "a raw request has a raw answer", form).await;
}

fn expect_code<T>(answer: Result<T, Status>, wanted: Code) -> CheckVerdict {
    match answer {
        Ok(_) => Err(Stop::Fail("an answer instead of an error".into())),
        Err(status) if status.code() == wanted && !status.message().is_empty() => Ok(()),
        Err(status) => Err(Stop::Fail(format!("{:?}: {:?}", status.code(), status.message()))),
    }
}

async fn check_grpc_errors(
    runner: &mut CheckRunner,
    mut client: GrpcClient,
    model: &ModelMetadata,
) {
    let any = async {
        let nobody = pb::ModelInferRequest {
            model_name: "slipway-conformance-no-such-model".into(),
            ..infer_request(model, false)
        };
        ensure!(client.model_infer(nobody).await.is_err(), "an answer of an unknown model");
        let none = pb::ModelInferRequest {
            inputs: vec![],
            raw_input_contents: vec![],
            ..infer_request(model, false)
        };
        ensure!(client.model_infer(none).await.is_err(), "an answer without inputs");
        Ok(())
    };
    runner
        .check(Required, "grpc.error", "an unknown model and missing inputs are errors", any)
        .await;
    let unknown = async {
        let nobody = pb::ModelInferRequest {
            model_name: "slipway-conformance-no-such-model".into(),
            ..infer_request(model, false)
        };
        expect_code(client.model_infer(nobody).await, Code::NotFound)
    };
    runner.check(Recommended, "grpc.error.model", "an unknown model is NOT_FOUND", unknown).await;
    type RequestEdit = fn(&mut pb::ModelInferRequest);
    let cases: [(&'static str, &'static str, RequestEdit); 7] = [
        ("grpc.error.missing_input", "a missing input is INVALID_ARGUMENT", |r| {
            r.inputs.remove(0);
            r.raw_input_contents.remove(0);
        }),
        ("grpc.error.unknown_input", "an unknown input is INVALID_ARGUMENT", |r| {
            r.inputs[0].name = "no-such-input".into()
        }),
        ("grpc.error.datatype", "a datatype that is not the model's is INVALID_ARGUMENT", |r| {
            let other = if r.inputs[0].datatype == "FP64" { "INT64" } else { "FP64" };
            r.inputs[0].datatype = other.into();
        }),
        ("grpc.error.shape", "a negative dimension is INVALID_ARGUMENT", |r| {
            r.inputs[0].shape[0] = -1
        }),
        ("grpc.error.size", "raw contents of another size are INVALID_ARGUMENT", |r| {
            let blob = &mut r.raw_input_contents[0];
            *blob = blob.slice(1..);
        }),
        ("grpc.error.raw_count", "raw contents for some inputs only are INVALID_ARGUMENT", |r| {
            let again = r.raw_input_contents[0].clone();
            r.raw_input_contents.push(again);
        }),
        ("grpc.error.unknown_output", "an unknown output is INVALID_ARGUMENT", |r| {
            r.outputs = vec![InferRequestedOutputTensor {
                name: "no-such-output".into(),
                ..Default::default()
            }];
        }),
    ];
    for (name, wants, edit) in cases {
        let wrong = async {
            let mut wrong = infer_request(model, false);
            if wrong.inputs[0].shape.is_empty() {
                return skip_check("the first input is a scalar");
            }
            edit(&mut wrong);
            expect_code(client.model_infer(wrong).await, Code::InvalidArgument)
        };
        runner.check(Recommended, name, wants, wrong).await;
    }
}

/// Skips when the server does not implement the method.
fn skip_unimplemented<T>(answer: Result<tonic::Response<T>, Status>) -> Result<T, Stop> {
    match answer {
        Err(status) if status.code() == Code::Unimplemented => {
            skip_check("the server does not have it")
        }
        other => Ok(other?.into_inner()),
    }
}

async fn check_grpc_extensions(
    runner: &mut CheckRunner,
    mut client: GrpcClient,
    mut health: HealthClient<Channel>,
    model: &ModelMetadata,
) {
    let check = async {
        let found =
            skip_unimplemented(health.check(HealthCheckRequest { service: String::new() }).await)?;
        ensure!(found.status() == ServingStatus::Serving, "status {:?}", found.status());
        expect_code(
            health.check(HealthCheckRequest { service: "no.such.Service".into() }).await,
            Code::NotFound,
        )
    };
    runner
        .check(
            Extension,
            "grpc.health.v1",
            "health is SERVING, and NOT_FOUND for an unknown service",
            check,
        )
        .await;
    let statistics = async {
        let of = pb::ModelStatisticsRequest { name: model.name.clone(), version: String::new() };
        let found = skip_unimplemented(client.model_statistics(of).await)?.model_stats;
        ensure!(
            found.first().is_some_and(|m| m.name == model.name && m.inference_stats.is_some()),
            "got {found:?}"
        );
        Ok(())
    };
    runner.check(Extension, "grpc.statistics", "ModelStatistics has the model", statistics).await;
    let index = async {
        let index = skip_unimplemented(
            client.repository_index(pb::RepositoryIndexRequest::default()).await,
        )?
        .models;
        let own = index.iter().find(|m| m.name == model.name);
        ensure!(own.is_some_and(|m| m.state == "READY"), "the model is {own:?}");
        Ok(())
    };
    runner
        .check(Extension, "grpc.repository.index", "RepositoryIndex has the model as READY", index)
        .await;
    let load = async {
        let of = pb::RepositoryModelLoadRequest {
            model_name: "slipway-conformance-no-such-model".into(),
            ..Default::default()
        };
        match client.repository_model_load(of).await {
            Err(status) if status.code() == Code::Unimplemented => {
                skip_check("the server does not have it")
            }
            Err(_) => Ok(()),
            Ok(_) => Err(Stop::Fail("an unknown model was loaded".into())),
        }
    };
    runner
        .check(Extension, "grpc.repository.unknown", "loading an unknown model is an error", load)
        .await;
    let stream = async {
        let one = infer_request(model, false);
        let requests = RequestStream(vec![one.clone(), one].into_iter());
        let mut answers = skip_unimplemented(client.model_stream_infer(requests).await)?;
        for n in 0..2 {
            let Some(answer) = answers.message().await? else {
                return Err(Stop::Fail(format!("{n} answers to 2 requests")));
            };
            ensure!(answer.error_message.is_empty(), "{}", answer.error_message);
            ensure!(answer.infer_response.is_some(), "an answer without a response");
        }
        Ok(())
    };
    runner.check(Extension, "grpc.stream", "ModelStreamInfer answers each request", stream).await;
}

/// A stream of messages that are available from the start.
struct RequestStream(std::vec::IntoIter<pb::ModelInferRequest>);

impl tonic::codegen::tokio_stream::Stream for RequestStream {
    type Item = pb::ModelInferRequest;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(self.0.next())
    }
}
