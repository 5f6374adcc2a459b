//! The protocol over gRPC, on the port of REST.

use bytes::Bytes;
use slipway_oip::health::HealthCheckRequest;
use slipway_oip::health::health_check_response::ServingStatus;
use slipway_oip::health::health_client::HealthClient;
use slipway_oip::inference as pb;
use slipway_oip::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use slipway_oip::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use slipway_prediction_id::{PredictedLabel, PredictionReport};
use tonic::Code;
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;

use super::support::Server;

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.api.clone()).unwrap().connect().await.unwrap()
}

pub(crate) async fn client(server: &Server) -> Client {
    Client::new(channel(server).await)
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor {
        name: name.into(),
        datatype: datatype.into(),
        shape: shape.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn raw(values: &[f32]) -> Bytes {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

pub(crate) fn affine(rows: i64, values: &[f32]) -> pb::ModelInferRequest {
    pb::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input("x", "FP32", &[rows, 2])],
        raw_input_contents: vec![raw(values)],
        outputs: vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }],
        ..Default::default()
    }
}

pub(crate) fn slow(rounds: i64) -> pb::ModelInferRequest {
    let contents = pb::InferTensorContents { int64_contents: vec![rounds], ..Default::default() };
    let input = InferInputTensor { contents: Some(contents), ..input("rounds", "INT64", &[1]) };
    pb::ModelInferRequest { model_name: "m".into(), inputs: vec![input], ..Default::default() }
}

#[tokio::test]
async fn metadata_and_readiness() {
    let server = Server::start("simple", &["--model-version", "7"]);
    let mut client = client(&server).await;
    assert!(client.server_live(pb::ServerLiveRequest {}).await.unwrap().into_inner().live);
    assert!(client.server_ready(pb::ServerReadyRequest {}).await.unwrap().into_inner().ready);
    let about = client.server_metadata(pb::ServerMetadataRequest {}).await.unwrap().into_inner();
    assert_eq!(about.name, "slipway-runtime");
    assert!(about.extensions.contains(&"statistics".to_owned()));
    let ready = |name: &str, version: &str| pb::ModelReadyRequest {
        name: name.into(),
        version: version.into(),
    };
    assert!(client.model_ready(ready("m", "7")).await.unwrap().into_inner().ready);
    for (name, version) in [("other", ""), ("m", "8")] {
        assert_eq!(
            client.model_ready(ready(name, version)).await.unwrap_err().code(),
            Code::NotFound
        );
    }
    let of = pb::ModelMetadataRequest { name: "m".into(), version: String::new() };
    let metadata = client.model_metadata(of).await.unwrap().into_inner();
    assert_eq!(
        (metadata.platform.as_str(), metadata.versions),
        ("onnx_onnxv1", vec!["7".to_owned()])
    );
    assert_eq!(metadata.inputs[0].shape, [-1, 4]);
    assert_eq!(metadata.outputs[1].name, "OUTPUT1");
}

#[tokio::test]
async fn typed_and_raw_give_what_rest_gives() {
    let server = Server::start("classifier", &[]);
    let mut client = client(&server).await;
    let x = [1.5, 2.0, 2.25, 4.0, 5.0, 1.0, 0.0, 0.0];
    let (_, json) = server
        .infer(&serde_json::json!({"inputs": [{"name": "X", "shape": [2, 4], "datatype": "FP32", "data": x}]}))
        .await;
    let probabilities: Vec<f32> =
        serde_json::from_value(json["outputs"][1]["data"].clone()).unwrap();

    let contents = pb::InferTensorContents { fp32_contents: x.to_vec(), ..Default::default() };
    let typed = InferInputTensor { contents: Some(contents), ..input("X", "FP32", &[2, 4]) };
    let mut request = pb::ModelInferRequest {
        model_name: "m".into(),
        id: "abc".into(),
        inputs: vec![typed],
        ..Default::default()
    };
    let answer = client.model_infer(request.clone()).await.unwrap();
    let told = answer.metadata().get("x-slipway-prediction").unwrap().to_str().unwrap();
    let labels = [30, 10].map(|label| Some(PredictedLabel::Number(label)));
    assert_eq!(
        PredictionReport::decode(told).unwrap().labels,
        labels,
        "for the gateway, which issues the id"
    );
    let answer = answer.into_inner();
    assert_eq!((answer.id.as_str(), answer.model_version.as_str()), ("abc", "1"));
    assert!(answer.raw_output_contents.is_empty());
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().int64_contents, [30, 10]);
    assert_eq!(answer.outputs[1].contents.as_ref().unwrap().fp32_contents, probabilities);
    assert_eq!(answer.outputs[1].shape, [2, 3]);

    request.inputs[0].contents = None;
    request.raw_input_contents = vec![raw(&x)];
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert!(answer.outputs.iter().all(|o| o.contents.is_none()));
    assert_eq!(answer.raw_output_contents[1], raw(&probabilities));

    // Three requests in two protocols, each counted once.
    assert_eq!(
        (server.code(200).await, server.metric("slipway_runtime_requests_total").await),
        (3.0, 3.0)
    );
    assert_eq!(server.metric("slipway_runtime_inference_duration_seconds_count").await, 3.0);
}

#[tokio::test]
async fn every_datatype_passes_through_typed_and_raw() {
    let server = Server::start("types", &[]);
    let mut client = client(&server).await;
    let none = pb::InferTensorContents::default;
    let cases: Vec<(&str, &str, pb::InferTensorContents, Vec<u8>)> = vec![
        (
            "bool",
            "BOOL",
            pb::InferTensorContents { bool_contents: vec![true, false], ..none() },
            vec![1, 0],
        ),
        (
            "u8",
            "UINT8",
            pb::InferTensorContents { uint_contents: vec![0, 255], ..none() },
            vec![0, 255],
        ),
        (
            "u16",
            "UINT16",
            pb::InferTensorContents { uint_contents: vec![1, 65535], ..none() },
            vec![1, 0, 255, 255],
        ),
        (
            "u32",
            "UINT32",
            pb::InferTensorContents { uint_contents: vec![1, u32::MAX], ..none() },
            [1_u32.to_le_bytes(), u32::MAX.to_le_bytes()].concat(),
        ),
        (
            "u64",
            "UINT64",
            pb::InferTensorContents { uint64_contents: vec![1, u64::MAX], ..none() },
            [1_u64.to_le_bytes(), u64::MAX.to_le_bytes()].concat(),
        ),
        (
            "i8",
            "INT8",
            pb::InferTensorContents { int_contents: vec![-128, 127], ..none() },
            vec![128, 127],
        ),
        (
            "i16",
            "INT16",
            pb::InferTensorContents { int_contents: vec![-2, 2], ..none() },
            [(-2_i16).to_le_bytes(), 2_i16.to_le_bytes()].concat(),
        ),
        (
            "i32",
            "INT32",
            pb::InferTensorContents { int_contents: vec![-2, 2], ..none() },
            [(-2_i32).to_le_bytes(), 2_i32.to_le_bytes()].concat(),
        ),
        (
            "i64",
            "INT64",
            pb::InferTensorContents { int64_contents: vec![i64::MIN, i64::MAX], ..none() },
            [i64::MIN.to_le_bytes(), i64::MAX.to_le_bytes()].concat(),
        ),
        (
            "f32",
            "FP32",
            pb::InferTensorContents { fp32_contents: vec![0.1, f32::INFINITY], ..none() },
            raw(&[0.1, f32::INFINITY]).to_vec(),
        ),
        (
            "f64",
            "FP64",
            pb::InferTensorContents { fp64_contents: vec![0.1, -1.5], ..none() },
            [0.1_f64.to_le_bytes(), (-1.5_f64).to_le_bytes()].concat(),
        ),
        (
            "text",
            "BYTES",
            pb::InferTensorContents { bytes_contents: vec!["é".into(), vec![]], ..none() },
            vec![2, 0, 0, 0, 0xc3, 0xa9, 0, 0, 0, 0],
        ),
    ];
    let half: Vec<u8> = [0x3c00_u16.to_le_bytes(), 0xc000_u16.to_le_bytes()].concat();
    let mut request = pb::ModelInferRequest { model_name: "m".into(), ..Default::default() };
    for (name, datatype, contents, _) in &cases {
        request.inputs.push(InferInputTensor {
            contents: Some(contents.clone()),
            ..input(name, datatype, &[2])
        });
        request
            .outputs
            .push(InferRequestedOutputTensor { name: format!("{name}_out"), ..Default::default() });
    }
    // FP16 has no typed form, so without the raw form an input is missing.
    let mut typed = request.clone();
    typed.inputs.push(InferInputTensor {
        contents: Some(pb::InferTensorContents { fp32_contents: vec![1.0, 2.0], ..none() }),
        ..input("f16", "FP16", &[2])
    });
    let error = client.model_infer(typed).await.unwrap_err();
    assert!(
        error.code() == Code::InvalidArgument && error.message().contains("FP16 has no typed form"),
        "{error}"
    );

    for input in &mut request.inputs {
        input.contents = None;
    }
    request.inputs.push(input("f16", "FP16", &[2]));
    request
        .outputs
        .push(InferRequestedOutputTensor { name: "f16_out".into(), ..Default::default() });
    request.raw_input_contents =
        cases.iter().map(|c| Bytes::from(c.3.clone())).chain([Bytes::from(half.clone())]).collect();
    let sent = request.raw_input_contents.clone();
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, sent);
}

#[tokio::test]
async fn a_typed_request_has_a_typed_answer() {
    let server = Server::start("simple", &[]);
    let mut client = client(&server).await;
    let contents = |v: &[i32]| {
        Some(pb::InferTensorContents { int_contents: v.to_vec(), ..Default::default() })
    };
    let inputs = vec![
        InferInputTensor { contents: contents(&[1, 2, 3, 4]), ..input("INPUT0", "INT32", &[1, 4]) },
        InferInputTensor { contents: contents(&[1, 1, 1, 1]), ..input("INPUT1", "INT32", &[1, 4]) },
    ];
    let request = pb::ModelInferRequest { model_name: "m".into(), inputs, ..Default::default() };
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answer.outputs[0].contents.as_ref().unwrap().int_contents, [2, 3, 4, 5]);
    assert_eq!(answer.outputs[1].contents.as_ref().unwrap().int_contents, [0, 1, 2, 3]);
}

#[tokio::test]
async fn compressed_requests_get_compressed_answers() {
    let server = Server::start("affine", &[]);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client =
            client(&server).await.send_compressed(encoding).accept_compressed(encoding);
        let answer = client.model_infer(affine(500, &[3.0; 1000])).await.unwrap();
        assert!(answer.metadata().get("grpc-encoding").is_some());
        assert_eq!(answer.into_inner().raw_output_contents[0], raw(&[7.0; 1000]));
    }
}

#[tokio::test]
async fn a_stream_answers_each_request_in_order() {
    let server = Server::start("affine", &[]);
    let mut client = client(&server).await;
    let mut bad = affine(1, &[1.0, 2.0]);
    (bad.id, bad.inputs[0].name) = ("second".into(), "z".into());
    let requests = [affine(1, &[1.0, 2.0]), bad, affine(1, &[2.0, 3.0])];
    let mut answers = client.model_stream_infer(tokio_stream(requests)).await.unwrap().into_inner();
    let first = answers.message().await.unwrap().unwrap();
    assert_eq!(first.infer_response.unwrap().raw_output_contents[0], raw(&[3.0, 5.0]));
    let second = answers.message().await.unwrap().unwrap();
    assert!(second.error_message.contains("no input \"z\""));
    assert_eq!(second.infer_response.unwrap().id, "second");
    let third = answers.message().await.unwrap().unwrap();
    assert_eq!(third.infer_response.unwrap().raw_output_contents[0], raw(&[5.0, 7.0]));
    assert!(answers.message().await.unwrap().is_none());
    assert_eq!((server.code(200).await, server.code(400).await), (2.0, 1.0));
}

fn tokio_stream<const N: usize>(
    items: [pb::ModelInferRequest; N],
) -> impl futures::Stream<Item = pb::ModelInferRequest> + Send + 'static {
    futures::stream::iter(items)
}

#[tokio::test(flavor = "multi_thread")]
async fn health_is_checked_and_watched_to_the_end() {
    let mut server = Server::start("affine", &["--drain-delay-seconds", "1"]);
    let mut client = HealthClient::new(channel(&server).await);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "inference.GRPCInferenceService", "m"] {
        assert_eq!(
            client.check(ask(service)).await.unwrap().into_inner().status(),
            ServingStatus::Serving
        );
    }
    assert_eq!(client.check(ask("other")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = client.watch(ask("other")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watch = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.signal("TERM");
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // The streams end, so they do not delay the end of the process.
    assert!(watch.message().await.unwrap().is_none());
    assert!(server.wait().success());
}

#[tokio::test]
async fn statistics_agree_in_both_protocols() {
    let server = Server::start("affine", &[]);
    let mut client = client(&server).await;
    client.model_infer(affine(3, &[0.0; 6])).await.unwrap();
    client.model_infer(affine(1, &[0.0; 6])).await.unwrap_err();
    let of = |name: &str| pb::ModelStatisticsRequest { name: name.into(), version: String::new() };
    let stats = client.model_statistics(of("m")).await.unwrap().into_inner().model_stats.remove(0);
    assert_eq!((stats.inference_count, stats.execution_count), (3, 1));
    let inference = stats.inference_stats.unwrap();
    assert_eq!((inference.success.unwrap().count, inference.fail.unwrap().count), (1, 1));
    assert_eq!((stats.batch_stats[0].batch_size, stats.batch_stats.len()), (3, 1));
    assert!(inference.compute_infer.unwrap().ns > 0 && stats.last_inference > 0);
    assert_eq!(client.model_statistics(of("other")).await.unwrap_err().code(), Code::NotFound);
    for path in ["/v2/models/stats", "/v2/models/m/stats", "/v2/models/m/versions/1/stats"] {
        let (status, body) = server.get(path).await;
        assert_eq!(status, 200, "{body}");
        let model = &body["model_stats"][0];
        assert_eq!((&model["inference_count"], &model["execution_count"]), (&3.into(), &1.into()));
        assert_eq!(model["inference_stats"]["fail"]["count"], 1);
        assert_eq!(model["batch_stats"][0]["batch_size"], 3);
    }
}
