//! The protocol by gRPC, on the port of REST.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use slipway_oip::health::HealthCheckRequest;
use slipway_oip::health::health_check_response::ServingStatus;
use slipway_oip::health::health_client::HealthClient;
use slipway_oip::inference as pb;
use slipway_oip::inference::grpc_inference_service_client::GrpcInferenceServiceClient;
use slipway_oip::inference::infer_parameter::ParameterChoice;
use slipway_oip::inference::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use tonic::codec::CompressionEncoding;
use tonic::transport::Channel;
use tonic::{Code, Request};

use super::support::{Server, eventually};

pub(crate) type Client = GrpcInferenceServiceClient<Channel>;

async fn channel(server: &Server) -> Channel {
    Channel::from_shared(server.api.clone()).unwrap().connect().await.unwrap()
}

pub(crate) async fn client(server: &Server) -> Client {
    Client::new(channel(server).await)
}

fn input(name: &str, datatype: &str, shape: &[i64]) -> InferInputTensor {
    InferInputTensor { name: name.into(), datatype: datatype.into(), shape: shape.to_vec(), ..Default::default() }
}

fn raw(values: &[f32]) -> Bytes {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn affine(rows: i64, values: &[f32]) -> pb::ModelInferRequest {
    pb::ModelInferRequest {
        model_name: "m".into(),
        inputs: vec![input("x", "FP32", &[rows, 2])],
        raw_input_contents: vec![raw(values)],
        outputs: vec![InferRequestedOutputTensor { name: "y".into(), ..Default::default() }],
        ..Default::default()
    }
}

fn slow(rounds: i64) -> pb::ModelInferRequest {
    let contents = pb::InferTensorContents { int64_contents: vec![rounds], ..Default::default() };
    let input = InferInputTensor { contents: Some(contents), ..input("rounds", "INT64", &[1]) };
    pb::ModelInferRequest { model_name: "m".into(), inputs: vec![input], ..Default::default() }
}

fn prediction_id(response: &pb::ModelInferResponse) -> String {
    match &response.parameters["prediction_id"].parameter_choice {
        Some(ParameterChoice::StringParam(id)) => id.clone(),
        other => panic!("{other:?}"),
    }
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
    let ready = |name: &str, version: &str| pb::ModelReadyRequest { name: name.into(), version: version.into() };
    assert!(client.model_ready(ready("m", "7")).await.unwrap().into_inner().ready);
    for (name, version) in [("other", ""), ("m", "8")] {
        assert_eq!(client.model_ready(ready(name, version)).await.unwrap_err().code(), Code::NotFound);
    }
    let of = pb::ModelMetadataRequest { name: "m".into(), version: String::new() };
    let metadata = client.model_metadata(of).await.unwrap().into_inner();
    assert_eq!((metadata.platform.as_str(), metadata.versions), ("onnx_onnxv1", vec!["7".to_owned()]));
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
    let probabilities: Vec<f32> = serde_json::from_value(json["outputs"][1]["data"].clone()).unwrap();

    let contents = pb::InferTensorContents { fp32_contents: x.to_vec(), ..Default::default() };
    let typed = InferInputTensor { contents: Some(contents), ..input("X", "FP32", &[2, 4]) };
    let mut request =
        pb::ModelInferRequest { model_name: "m".into(), id: "abc".into(), inputs: vec![typed], ..Default::default() };
    let answer = client.model_infer(request.clone()).await.unwrap();
    let id = answer.metadata().get("x-slipway-prediction-id").unwrap().to_str().unwrap().to_owned();
    let answer = answer.into_inner();
    assert_eq!(prediction_id(&answer), id);
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

    // Feedback for a prediction by gRPC.
    let feedback = serde_json::json!({"feedback": [{"prediction_id": id, "labels": [30, 20]}]});
    let response = server.post("/v2/models/m/feedback").body(feedback.to_string()).send().await.unwrap();
    assert_eq!(response.status(), 200);
    // Three requests in two protocols, each counted once.
    assert_eq!((server.code(200).await, server.metric("slipway_runtime_requests_total").await), (3.0, 3.0));
    assert_eq!(server.metric("slipway_runtime_inference_duration_seconds_count").await, 3.0);
}

#[tokio::test]
async fn every_datatype_passes_through_typed_and_raw() {
    let server = Server::start("types", &[]);
    let mut client = client(&server).await;
    let none = pb::InferTensorContents::default;
    let cases: Vec<(&str, &str, pb::InferTensorContents, Vec<u8>)> = vec![
        ("bool", "BOOL", pb::InferTensorContents { bool_contents: vec![true, false], ..none() }, vec![1, 0]),
        ("u8", "UINT8", pb::InferTensorContents { uint_contents: vec![0, 255], ..none() }, vec![0, 255]),
        ("u16", "UINT16", pb::InferTensorContents { uint_contents: vec![1, 65535], ..none() }, vec![1, 0, 255, 255]),
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
        ("i8", "INT8", pb::InferTensorContents { int_contents: vec![-128, 127], ..none() }, vec![128, 127]),
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
        request.inputs.push(InferInputTensor { contents: Some(contents.clone()), ..input(name, datatype, &[2]) });
        request.outputs.push(InferRequestedOutputTensor { name: format!("{name}_out"), ..Default::default() });
    }
    // The half float has no typed form, and without it an input is missing.
    let mut typed = request.clone();
    typed.inputs.push(InferInputTensor {
        contents: Some(pb::InferTensorContents { fp32_contents: vec![1.0, 2.0], ..none() }),
        ..input("f16", "FP16", &[2])
    });
    let error = client.model_infer(typed).await.unwrap_err();
    assert!(error.code() == Code::InvalidArgument && error.message().contains("FP16 has no typed form"), "{error}");

    for input in &mut request.inputs {
        input.contents = None;
    }
    request.inputs.push(input("f16", "FP16", &[2]));
    request.outputs.push(InferRequestedOutputTensor { name: "f16_out".into(), ..Default::default() });
    request.raw_input_contents =
        cases.iter().map(|c| Bytes::from(c.3.clone())).chain([Bytes::from(half.clone())]).collect();
    let sent = request.raw_input_contents.clone();
    let answer = client.model_infer(request).await.unwrap().into_inner();
    assert_eq!(answer.raw_output_contents, sent);
}

#[tokio::test]
async fn a_typed_answer_has_every_typed_datatype() {
    // Each datatype alone would need thirteen models; the simple ones are here, the others are in the unit tests.
    let server = Server::start("simple", &[]);
    let mut client = client(&server).await;
    let contents = |v: &[i32]| Some(pb::InferTensorContents { int_contents: v.to_vec(), ..Default::default() });
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
async fn errors_have_their_codes_and_are_counted_once() {
    let server = Server::start("affine", &["--max-body-bytes", "4096", "--max-request-rows", "8"]);
    let mut client = client(&server).await;
    let with = |change: &dyn Fn(&mut pb::ModelInferRequest)| {
        let mut request = affine(1, &[1.0, 2.0]);
        change(&mut request);
        request
    };
    let parameter = |choice| pb::InferParameter { parameter_choice: Some(choice) };
    let cases: Vec<(pb::ModelInferRequest, Code, &str)> = vec![
        (with(&|r| r.model_name = "other".into()), Code::NotFound, "no model \"other\""),
        (with(&|r| r.model_version = "9".into()), Code::NotFound, "no version \"9\""),
        (with(&|r| r.inputs[0].name = "z".into()), Code::InvalidArgument, "no input \"z\"; it has \"x\""),
        (with(&|r| r.inputs.clear()), Code::InvalidArgument, "raw_input_contents has 1 items for 0 inputs"),
        (with(&|r| (r.inputs.clear(), r.raw_input_contents.clear()).0), Code::InvalidArgument, "missing \"x\""),
        (with(&|r| r.inputs[0].datatype = "FP64".into()), Code::InvalidArgument, "the model wants FP32"),
        (with(&|r| r.inputs[0].shape = vec![1, 3]), Code::InvalidArgument, "must be 2"),
        (with(&|r| r.inputs[0].shape = vec![-1, 2]), Code::InvalidArgument, "negative"),
        (with(&|r| r.inputs[0].shape = vec![1 << 40, 2]), Code::InvalidArgument, "need"),
        (with(&|r| r.raw_input_contents[0] = raw(&[1.0])), Code::InvalidArgument, "has 4 bytes"),
        (with(&|r| r.outputs[0].name = "z".into()), Code::InvalidArgument, "no output \"z\""),
        (with(&|r| r.outputs.push(r.outputs[0].clone())), Code::InvalidArgument, "asked for twice"),
        (affine(9, &[0.0; 18]), Code::InvalidArgument, "at most 8"),
        (
            with(&|r| drop(r.parameters.insert("timeout".into(), parameter(ParameterChoice::BoolParam(true))))),
            Code::InvalidArgument,
            "microseconds",
        ),
        (
            with(&|r| drop(r.parameters.insert("priority".into(), parameter(ParameterChoice::Int64Param(4))))),
            Code::InvalidArgument,
            "priority",
        ),
        (
            with(&|r| {
                drop(
                    r.inputs[0]
                        .parameters
                        .insert("shared_memory_region".into(), parameter(ParameterChoice::StringParam("s".into()))),
                )
            }),
            Code::InvalidArgument,
            "not supported",
        ),
        (affine(1, &[0.0; 2000]), Code::OutOfRange, "--max-body-bytes"),
    ];
    let sent = cases.len() as f64;
    for (request, code, part) in cases {
        let error = client.model_infer(request.clone()).await.unwrap_err();
        assert!(error.code() == code && error.message().contains(part), "{request:?}\n-> {error}\nlacks {part:?}");
    }
    assert_eq!((server.code(404).await, server.code(413).await, server.code(400).await), (2.0, 1.0, sent - 3.0));
    assert_eq!(server.metric("slipway_runtime_requests_total").await, sent);
}

#[tokio::test]
async fn bombs_and_nonsense_are_the_clients_errors() {
    let server = Server::start("affine", &["--max-body-bytes", "65536"]);
    let post = async |encoding: &str, path: &str, body: Vec<u8>| {
        let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let request = http.post(format!("{}{path}", server.api)).header("content-type", "application/grpc");
        let response =
            request.header("te", "trailers").header("grpc-encoding", encoding).body(body).send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        (header("grpc-status").unwrap_or_default(), header("grpc-message").unwrap_or_default())
    };
    let framed =
        |compressed: u8, message: &[u8]| [&[compressed][..], &(message.len() as u32).to_be_bytes(), message].concat();
    let infer = "/inference.GRPCInferenceService/ModelInfer";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &vec![0; 8 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 65536);
    // Ends by its size unpacked.
    assert_eq!(post("gzip", infer, framed(1, &bomb)).await.0, "11");
    assert_eq!(post("gzip", infer, framed(1, b"nonsense")).await.0, "3");
    assert_eq!(post("identity", infer, framed(0, &[0xff; 10])).await.0, "3");
    // Two bytes on the wire for each tensor.
    assert_eq!(post("identity", infer, framed(0, &[0x2a, 0].repeat(20_000))).await.0, "3");
    assert_eq!(post("identity", infer, vec![]).await.0, "3");
    assert_eq!(post("identity", infer, vec![0, 0, 0, 0, 9, 1]).await.0, "3");
    assert_eq!(post("br", infer, framed(1, b"x")).await.0, "12");
    assert_eq!(post("identity", "/inference.GRPCInferenceService/Nothing", framed(0, b"")).await.0, "12");
    assert_eq!(post("identity", "/other.Service/Nothing", framed(0, b"")).await.0, "12");
    assert_eq!(
        server.metric("slipway_runtime_requests_total{modeldeployment=\"test\",revision=\"rev1\",code=\"500\"}").await,
        0.0
    );
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 7.0);
}

#[tokio::test]
async fn compressed_requests_get_compressed_answers() {
    let server = Server::start("affine", &[]);
    for encoding in [CompressionEncoding::Gzip, CompressionEncoding::Deflate] {
        let mut client = client(&server).await.send_compressed(encoding).accept_compressed(encoding);
        let answer = client.model_infer(affine(500, &[3.0; 1000])).await.unwrap();
        assert!(answer.metadata().get("grpc-encoding").is_some());
        assert_eq!(answer.into_inner().raw_output_contents[0], raw(&[7.0; 1000]));
    }
}

/// Far more work than any deadline here allows.
const LONG: i64 = 3_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_full_queues_and_clients_that_leave() {
    let server = Server::start("slow", &["--workers", "1", "--queue-capacity", "1", "--request-timeout-seconds", "3"]);
    let client = client(&server).await;
    // The client's own deadline, as gRPC tells it.
    let mut request = Request::new(slow(LONG));
    request.set_timeout(Duration::from_millis(100));
    let error = client.clone().model_infer(request).await.unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    // And as a parameter.
    let mut request = slow(LONG);
    let timeout = pb::InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(50_000)) };
    request.parameters = HashMap::from([("timeout".to_owned(), timeout)]);
    let error = client.clone().model_infer(request).await.unwrap_err();
    assert!(error.code() == Code::DeadlineExceeded && error.message().contains("50 ms"), "{error}");
    // tonic's client may give up before the server's answer comes; the server counts it either way.
    eventually("counted", async || server.code(504).await + server.code(499).await == 2.0).await;

    let many = futures::future::join_all((0..8).map(|_| {
        let mut client = client.clone();
        async move { client.model_infer(slow(LONG)).await.unwrap_err().code() }
    }));
    let codes = many.await;
    let busy = codes.iter().filter(|c| **c == Code::ResourceExhausted).count();
    assert!(
        busy >= 5 && codes.iter().all(|c| matches!(c, Code::ResourceExhausted | Code::DeadlineExceeded)),
        "{codes:?}"
    );
    assert_eq!(server.code(429).await, busy as f64);

    let (mut leaving, before) = (client.clone(), server.code(499).await);
    let call = tokio::spawn(async move { leaving.model_infer(slow(LONG)).await });
    eventually("in flight", async || server.metric("slipway_runtime_requests_in_flight").await == 1.0).await;
    call.abort();
    eventually("left", async || server.code(499).await == before + 1.0).await;
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 11.0);
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
        assert_eq!(client.check(ask(service)).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    assert_eq!(client.check(ask("other")).await.unwrap_err().code(), Code::NotFound);
    let mut unknown = client.watch(ask("other")).await.unwrap().into_inner();
    assert_eq!(unknown.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
    let mut watch = client.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    server.signal("TERM");
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    // The streams end, so they do not hold up the end of the process.
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
