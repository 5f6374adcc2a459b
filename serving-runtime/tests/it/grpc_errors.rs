//! Errors over gRPC: their codes, hostile messages, deadlines and full queues.

use std::collections::HashMap;
use std::time::Duration;

use slipway_oip::inference as pb;
use slipway_oip::inference::infer_parameter::ParameterChoice;
use tonic::{Code, Request};

use super::grpc::{affine, client, raw, slow};
use super::support::{Server, eventually};

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
        (
            with(&|r| r.inputs[0].name = "z".into()),
            Code::InvalidArgument,
            "no input \"z\"; it has \"x\"",
        ),
        (
            with(&|r| r.inputs.clear()),
            Code::InvalidArgument,
            "raw_input_contents has 1 items for 0 inputs",
        ),
        (
            with(&|r| {
                *r = pb::ModelInferRequest {
                    inputs: vec![],
                    raw_input_contents: vec![],
                    ..r.clone()
                }
            }),
            Code::InvalidArgument,
            "missing \"x\"",
        ),
        (
            with(&|r| r.inputs[0].datatype = "FP64".into()),
            Code::InvalidArgument,
            "the model wants FP32",
        ),
        (with(&|r| r.inputs[0].shape = vec![1, 3]), Code::InvalidArgument, "must be 2"),
        (with(&|r| r.inputs[0].shape = vec![-1, 2]), Code::InvalidArgument, "negative"),
        (with(&|r| r.inputs[0].shape = vec![1 << 40, 2]), Code::InvalidArgument, "need"),
        (with(&|r| r.raw_input_contents[0] = raw(&[1.0])), Code::InvalidArgument, "has 4 bytes"),
        (with(&|r| r.outputs[0].name = "z".into()), Code::InvalidArgument, "no output \"z\""),
        (with(&|r| r.outputs.push(r.outputs[0].clone())), Code::InvalidArgument, "asked for twice"),
        (affine(9, &[0.0; 18]), Code::InvalidArgument, "at most 8"),
        (
            with(&|r| {
                drop(
                    r.parameters
                        .insert("timeout".into(), parameter(ParameterChoice::BoolParam(true))),
                )
            }),
            Code::InvalidArgument,
            "microseconds",
        ),
        (
            with(&|r| {
                drop(
                    r.parameters
                        .insert("priority".into(), parameter(ParameterChoice::Int64Param(4))),
                )
            }),
            Code::InvalidArgument,
            "priority",
        ),
        (
            with(&|r| {
                drop(r.inputs[0].parameters.insert(
                    "shared_memory_region".into(),
                    parameter(ParameterChoice::StringParam("s".into())),
                ))
            }),
            Code::InvalidArgument,
            "not supported",
        ),
        (affine(1, &[0.0; 2000]), Code::OutOfRange, "--max-body-bytes"),
    ];
    let sent = cases.len() as f64;
    for (request, code, part) in cases {
        let error = client.model_infer(request.clone()).await.unwrap_err();
        assert!(
            error.code() == code && error.message().contains(part),
            "{request:?}\n-> {error}\nlacks {part:?}"
        );
    }
    assert_eq!(
        (server.code(404).await, server.code(413).await, server.code(400).await),
        (2.0, 1.0, sent - 3.0)
    );
    assert_eq!(server.metric("slipway_runtime_requests_total").await, sent);
}

#[tokio::test]
async fn bombs_and_nonsense_are_the_clients_errors() {
    let server = Server::start("affine", &["--max-body-bytes", "65536"]);
    let post = async |encoding: &str, path: &str, body: Vec<u8>| {
        let http = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
        let request =
            http.post(format!("{}{path}", server.api)).header("content-type", "application/grpc");
        let response = request
            .header("te", "trailers")
            .header("grpc-encoding", encoding)
            .body(body)
            .send()
            .await
            .unwrap();
        let header =
            |name: &str| response.headers().get(name).map(|v| v.to_str().unwrap().to_owned());
        (header("grpc-status").unwrap_or_default(), header("grpc-message").unwrap_or_default())
    };
    let framed = |compressed: u8, message: &[u8]| {
        [&[compressed][..], &(message.len() as u32).to_be_bytes(), message].concat()
    };
    let infer = "/inference.GRPCInferenceService/ModelInfer";
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut gzip, &vec![0; 8 << 20]).unwrap();
    let bomb = gzip.finish().unwrap();
    assert!(bomb.len() < 65536);
    // Rejected because of its decompressed size.
    assert_eq!(post("gzip", infer, framed(1, &bomb)).await.0, "11");
    assert_eq!(post("gzip", infer, framed(1, b"nonsense")).await.0, "3");
    assert_eq!(post("identity", infer, framed(0, &[0xff; 10])).await.0, "3");
    // Two bytes on the wire for each tensor.
    assert_eq!(post("identity", infer, framed(0, &[0x2a, 0].repeat(20_000))).await.0, "3");
    assert_eq!(post("identity", infer, vec![]).await.0, "3");
    assert_eq!(post("identity", infer, vec![0, 0, 0, 0, 9, 1]).await.0, "3");
    assert_eq!(post("br", infer, framed(1, b"x")).await.0, "12");
    assert_eq!(
        post("identity", "/inference.GRPCInferenceService/Nothing", framed(0, b"")).await.0,
        "12"
    );
    assert_eq!(post("identity", "/other.Service/Nothing", framed(0, b"")).await.0, "12");
    assert_eq!(
        server.metric("slipway_runtime_requests_total{modeldeployment=\"test\",revision=\"rev1\",code=\"500\"}").await,
        0.0
    );
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 7.0);
}

/// Far more work than any deadline here allows.
const LONG: i64 = 3_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn deadlines_full_queues_and_clients_that_leave() {
    let server = Server::start(
        "slow",
        &["--workers", "1", "--queue-capacity", "1", "--request-timeout-seconds", "3"],
    );
    let client = client(&server).await;
    // The client's deadline in gRPC's own header.
    let mut request = Request::new(slow(LONG));
    request.set_timeout(Duration::from_millis(100));
    let error = client.clone().model_infer(request).await.unwrap_err();
    assert!(matches!(error.code(), Code::DeadlineExceeded | Code::Cancelled), "{error}");
    // The deadline as a parameter.
    let mut request = slow(LONG);
    let timeout =
        pb::InferParameter { parameter_choice: Some(ParameterChoice::Int64Param(50_000)) };
    request.parameters = HashMap::from([("timeout".to_owned(), timeout)]);
    let error = client.clone().model_infer(request).await.unwrap_err();
    assert!(error.code() == Code::DeadlineExceeded && error.message().contains("50 ms"), "{error}");
    // tonic's client may give up before the server's answer arrives; the server counts the request
    // either way.
    eventually("counted", async || server.code(504).await + server.code(499).await == 2.0).await;

    let many = futures::future::join_all((0..8).map(|_| {
        let mut client = client.clone();
        async move { client.model_infer(slow(LONG)).await.unwrap_err().code() }
    }));
    let codes = many.await;
    let busy = codes.iter().filter(|c| **c == Code::ResourceExhausted).count();
    assert!(
        busy >= 5
            && codes.iter().all(|c| matches!(c, Code::ResourceExhausted | Code::DeadlineExceeded)),
        "{codes:?}"
    );
    assert_eq!(server.code(429).await, busy as f64);

    let (mut leaving, before) = (client.clone(), server.code(499).await);
    let call = tokio::spawn(async move { leaving.model_infer(slow(LONG)).await });
    eventually("in flight", async || {
        server.metric("slipway_runtime_requests_in_flight").await == 1.0
    })
    .await;
    call.abort();
    eventually("left", async || server.code(499).await == before + 1.0).await;
    assert_eq!(server.metric("slipway_runtime_requests_total").await, 11.0);
}
