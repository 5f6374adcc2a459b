//! For any input: no panic, no 5xx, and errors in JSON.

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};
use slipway_runtime_engine::tensor::DataType;

use super::support::{Server, answer};

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-zA-Z0-9_é\u{0}]{0,8}".prop_map(Value::from),
        prop_oneof![Just("x"), Just("y"), Just("FP32"), Just("INT64"), Just("BYTES")]
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        let key = prop_oneof![
            Just("name"),
            Just("shape"),
            Just("datatype"),
            Just("data"),
            Just("parameters"),
            Just("binary_data_size"),
            Just("timeout"),
            Just("inputs"),
            Just("outputs"),
            Just("id"),
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            proptest::collection::btree_map(key.prop_map(String::from), inner, 0..6)
                .prop_map(|m| Value::Object(m.into_iter().collect())),
        ]
    })
}

/// A valid request in which some parts were replaced by arbitrary values.
fn nearly_good() -> impl Strategy<Value = Value> {
    let part = || proptest::option::weighted(0.3, any_json());
    (part(), part(), part(), part(), part(), part(), part()).prop_map(
        |(name, shape, datatype, data, parameters, id, outputs)| {
            let mut input =
                json!({"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]});
            for (key, value) in [
                ("name", name),
                ("shape", shape),
                ("datatype", datatype),
                ("data", data),
                ("parameters", parameters),
            ] {
                if let Some(value) = value {
                    input[key] = value;
                }
            }
            let mut request = json!({"inputs": [input]});
            for (key, value) in [("id", id), ("outputs", outputs)] {
                if let Some(value) = value {
                    request[key] = value;
                }
            }
            request
        },
    )
}

fn signature() -> ModelSignature {
    let spec = |name: &str, datatype| TensorSignature {
        name: name.into(),
        datatype,
        shape: vec![None, Some(2)],
        axis: None,
    };
    ModelSignature {
        inputs: vec![spec("x", DataType::F32)],
        outputs: vec![spec("y", DataType::F32), spec("root", DataType::F32)],
    }
}

proptest! {
    #![proptest_config(Config { cases: 2000, failure_persistence: None, ..Config::default() })]

    #[test]
    fn parsing_never_panics(request in prop_oneof![any_json(), nearly_good()], cut in any::<u16>(), tail in any::<Vec<u8>>()) {
        let signature = signature();
        let mut body = request.to_string().into_bytes();
        let length = body.len();
        let _ = slipway_runtime_protocol::parse_request(&body, None, &signature);
        body.extend(tail);
        let _ = slipway_runtime_protocol::parse_request(&body, Some(length), &signature);
        let _ = slipway_runtime_protocol::parse_request(&body, Some(usize::from(cut)), &signature);
        body.truncate(usize::from(cut) % (body.len() + 1));
        if let Ok(parsed) = slipway_runtime_protocol::parse_request(&body, None, &signature) {
            prop_assert!(parsed.inputs.iter().all(|t| t.data.len() == t.shape.iter().product::<usize>()));
        }
    }
}

#[test]
fn whatever_is_sent_is_answered_below_500() {
    let server = Server::start("affine", &[]);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner =
        TestRunner::new(Config { cases: 300, failure_persistence: None, ..Config::default() });
    let strategy = (
        prop_oneof![any_json(), nearly_good()],
        proptest::option::weighted(0.3, any::<u8>().prop_map(|n| n.to_string())),
    );
    runner
        .run(&strategy, |(body, length)| {
            let (status, answer) = runtime.block_on(async {
                let mut request = server.post("/v2/models/m/infer").body(body.to_string());
                if let Some(length) = length {
                    request = request.header("inference-header-content-length", length);
                }
                answer(request.send().await.unwrap()).await
            });
            prop_assert!(status < 500, "{} -> {} {}", body, status, answer);
            prop_assert!(
                status == 200 || answer["error"].is_string(),
                "{} -> {} {}",
                body,
                status,
                answer
            );
            Ok(())
        })
        .unwrap();
    assert_eq!(runtime.block_on(server.probe("/readyz")), 200);
}
