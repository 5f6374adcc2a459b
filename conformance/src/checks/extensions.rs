//! Checks of the extensions: binary tensors, compression, statistics, the model repository.

use std::io::{Read as _, Write as _};

use flate2::Compression;
use flate2::read::{GzDecoder, ZlibDecoder};
use flate2::write::{GzEncoder, ZlibEncoder};
use serde_json::{Value, json};

use super::ServerMetadata;
use super::infer::{ensure_same_outputs, json_outputs, reference_outputs};
use crate::model::{ModelMetadata, SampleInput, raw_values, sample_request};
use crate::report::CheckGroup::{Extension, Recommended};
use crate::rest::{HEADER_LENGTH, RestClient, RestResponse};
use crate::{CheckRunner, CheckVerdict, Stop, ensure, skip_check};

pub(crate) async fn check_extensions(
    runner: &mut CheckRunner,
    rest: &RestClient,
    model: &ModelMetadata,
    found: &ServerMetadata,
) {
    check_binary_tensors(runner, rest, model, found).await;
    check_compression(runner, rest, model).await;
    check_statistics(runner, rest, model, found).await;
    check_repository(runner, rest, found).await;
}

fn require_extension(found: &ServerMetadata, names: &[&str]) -> CheckVerdict {
    if found.extensions.iter().any(|e| names.contains(&e.as_str())) {
        return Ok(());
    }
    skip_check(format!("the server does not list {:?}", names[0]))
}

fn binary_request(model: &ModelMetadata) -> (Value, Vec<u8>) {
    let samples = SampleInput::for_model(model);
    let mut blobs = Vec::new();
    let mut inputs = Vec::new();
    for sample in &samples {
        let blob = sample.to_raw_bytes();
        let parameters = json!({"binary_data_size": blob.len()});
        inputs.push(json!({"name": sample.spec.name, "shape": sample.shape, "datatype": sample.spec.datatype, "parameters": parameters}));
        blobs.extend_from_slice(&blob);
    }
    (json!({"inputs": inputs}), blobs)
}

/// Parses an answer with raw tensors.
fn parse_binary_response(answer: &RestResponse) -> Result<Vec<(String, Vec<Value>)>, Stop> {
    ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
    let length =
        answer.headers.get(HEADER_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let Some(length) = length.filter(|n| *n <= answer.body.len()) else {
        return Err(Stop::Fail(format!("no usable header {HEADER_LENGTH} in the answer")));
    };
    let (json, mut blobs) = answer.body.split_at(length);
    let json: Value = serde_json::from_slice(json)
        .map_err(|e| Stop::Fail(format!("the header is no JSON: {e}")))?;
    let mut found = Vec::new();
    for output in json["outputs"].as_array().into_iter().flatten() {
        let (name, datatype) = (
            output["name"].as_str().unwrap_or_default(),
            output["datatype"].as_str().unwrap_or_default(),
        );
        let size =
            output["parameters"]["binary_data_size"].as_u64().and_then(|n| usize::try_from(n).ok());
        let Some((blob, rest)) = size.and_then(|n| blobs.split_at_checked(n)) else {
            return Err(Stop::Fail(format!("output {name:?} has no binary_data_size that fits")));
        };
        blobs = rest;
        let read = raw_values(datatype, blob);
        found.push((name.to_owned(), read.unwrap_or_default()));
    }
    ensure!(blobs.is_empty(), "{} bytes follow the last output", blobs.len());
    Ok(found)
}

async fn check_binary_tensors(
    runner: &mut CheckRunner,
    rest: &RestClient,
    model: &ModelMetadata,
    found: &ServerMetadata,
) {
    let offered = || require_extension(found, &["binary_tensor_data", "binary_data"]);
    let inputs = async {
        offered()?;
        let (mut head, blobs) = binary_request(model);
        head["parameters"] = json!({"binary_data_output": true});
        let raw = parse_binary_response(&rest.infer_binary(&head, &blobs).await?)?;
        ensure_same_outputs(&raw, &reference_outputs(rest, model).await?)
    };
    runner
        .check(Extension, "rest.binary.both", "binary in and out is what JSON gives", inputs)
        .await;
    let one = async {
        offered()?;
        let mut body = sample_request(model);
        if !model.has_typed_form() {
            return skip_check("the model has FP16 or BF16, which has no form in JSON");
        }
        let wanted = model.outputs.first().map(|s| s.name.clone()).unwrap_or_default();
        body["outputs"] = json!([{"name": wanted, "parameters": {"binary_data": true}}]);
        let raw = parse_binary_response(&rest.infer(&body).await?)?;
        ensure!(raw.len() == 1, "{} outputs", raw.len());
        let all = reference_outputs(rest, model).await?;
        ensure_same_outputs(
            &raw,
            &all.into_iter().filter(|(name, _)| *name == wanted).collect::<Vec<_>>(),
        )
    };
    runner
        .check(Extension, "rest.binary.output", "one output can be asked for in binary", one)
        .await;
    let raw = async {
        offered()?;
        let [spec] = model.inputs.as_slice() else {
            return skip_check("the model has more than one input");
        };
        if spec.datatype == "BYTES" || spec.shape.iter().skip(1).any(|d| *d < 0) {
            return skip_check("the shape of the input cannot be told from its bytes");
        }
        let headers = [
            (HEADER_LENGTH, "0".to_owned()),
            ("content-type", "application/octet-stream".to_owned()),
        ];
        let answer = rest
            .post(&rest.infer_path(), &headers, SampleInput::for_tensor(spec).to_raw_bytes())
            .await?;
        ensure_same_outputs(
            &parse_binary_response(&answer)?,
            &reference_outputs(rest, model).await?,
        )
    };
    runner
        .check(
            Extension,
            "rest.binary.raw",
            "a request can be nothing but the bytes of the one input",
            raw,
        )
        .await;
    let wrong = async {
        offered()?;
        let (head, mut blobs) = binary_request(model);
        blobs.pop();
        let short = rest.infer_binary(&head, &blobs).await?;
        short.expect_error()?;
        ensure!(short.status == 400, "status {} for missing bytes", short.status);
        let headers = [(HEADER_LENGTH, "999999".to_owned())];
        let answer = rest.post(&rest.infer_path(), &headers, "{}").await?;
        answer.expect_error()?;
        ensure!(answer.status == 400, "status {} for a header longer than the body", answer.status);
        Ok(())
    };
    runner
        .check(Extension, "rest.binary.framing", "sizes that do not fit are 400 with a text", wrong)
        .await;
}

fn io_failure(e: std::io::Error) -> Stop {
    Stop::Fail(e.to_string())
}

async fn check_compression(runner: &mut CheckRunner, rest: &RestClient, model: &ModelMetadata) {
    let send = async |name: &str, body: Vec<u8>| -> CheckVerdict {
        let answer =
            rest.post(&rest.infer_path(), &[("content-encoding", name.to_owned())], body).await?;
        ensure_same_outputs(
            &json_outputs(&answer.expect_success()?)?,
            &reference_outputs(rest, model).await?,
        )
    };
    let gzip = async {
        reference_outputs(rest, model).await?;
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(sample_request(model).to_string().as_bytes()).map_err(io_failure)?;
        send("gzip", encoder.finish().map_err(io_failure)?).await
    };
    runner.check(Recommended, "rest.compression.gzip", "a request may be gzip", gzip).await;
    let deflate = async {
        reference_outputs(rest, model).await?;
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(sample_request(model).to_string().as_bytes()).map_err(io_failure)?;
        send("deflate", encoder.finish().map_err(io_failure)?).await
    };
    runner
        .check(Recommended, "rest.compression.deflate", "a request may be deflate (zlib)", deflate)
        .await;
    let answers = async {
        let wanted = reference_outputs(rest, model).await?;
        for name in ["gzip", "deflate"] {
            let answer = rest
                .post(
                    &rest.infer_path(),
                    &[("accept-encoding", name.to_owned())],
                    sample_request(model).to_string(),
                )
                .await?;
            ensure!(answer.status == 200, "status {}: {}", answer.status, answer.text());
            let mut plain = Vec::new();
            match answer.headers.get("content-encoding").and_then(|v| v.to_str().ok()) {
                None | Some("identity") => plain = answer.body.to_vec(),
                Some("gzip") => {
                    _ = GzDecoder::new(answer.body.as_ref())
                        .read_to_end(&mut plain)
                        .map_err(io_failure)?
                }
                Some("deflate") => {
                    _ = ZlibDecoder::new(answer.body.as_ref())
                        .read_to_end(&mut plain)
                        .map_err(io_failure)?
                }
                Some(other) => {
                    return Err(Stop::Fail(format!(
                        "content encoding {other:?} was not asked for"
                    )));
                }
            }
            let json: Value =
                serde_json::from_slice(&plain).map_err(|e| Stop::Fail(e.to_string()))?;
            ensure_same_outputs(&json_outputs(&json)?, &wanted)?;
        }
        Ok(())
    };
    runner
        .check(
            Recommended,
            "rest.compression.answer",
            "an answer is compressed as asked for, or not at all",
            answers,
        )
        .await;
}

async fn check_statistics(
    runner: &mut CheckRunner,
    rest: &RestClient,
    model: &ModelMetadata,
    found: &ServerMetadata,
) {
    let count = async || -> Result<u64, Stop> {
        let stats =
            rest.get(&format!("/v2/models/{}/stats", rest.model)).await?.expect_success()?;
        let own = &stats["model_stats"][0];
        ensure!(own["name"] == json!(rest.model), "model_stats[0].name is {}", own["name"]);
        for part in ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output"]
        {
            let tally = &own["inference_stats"][part];
            ensure!(
                tally["count"].is_u64() && tally["ns"].is_u64(),
                "inference_stats.{part} is {tally}"
            );
        }
        ensure!(own["batch_stats"].is_array(), "batch_stats is {}", own["batch_stats"]);
        ensure!(
            own["inference_count"].is_u64() && own["execution_count"].is_u64(),
            "the counts are no numbers"
        );
        own["inference_stats"]["success"]["count"]
            .as_u64()
            .ok_or_else(|| Stop::Fail("no count".into()))
    };
    let counted = async {
        require_extension(found, &["statistics"])?;
        reference_outputs(rest, model).await?;
        let before = count().await?;
        reference_outputs(rest, model).await?;
        let after = count().await?;
        ensure!(after > before, "success.count was {before} and is {after} after a request");
        Ok(())
    };
    runner
        .check(
            Extension,
            "rest.statistics",
            "the statistics have their fields and count requests",
            counted,
        )
        .await;
    let all = async {
        require_extension(found, &["statistics"])?;
        let stats = rest.get("/v2/models/stats").await?.expect_success()?;
        let names: Vec<_> = stats["model_stats"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|m| m["name"].clone())
            .collect();
        ensure!(names.contains(&json!(rest.model)), "the model is not among {names:?}");
        Ok(())
    };
    runner.check(Extension, "rest.statistics.all", "GET /v2/models/stats has the model", all).await;
}

async fn check_repository(runner: &mut CheckRunner, rest: &RestClient, found: &ServerMetadata) {
    let offered =
        || require_extension(found, &["model_repository", "model_repository(unload_dependents)"]);
    let index = async {
        offered()?;
        for body in ["", "{}", "{\"ready\": true}"] {
            let index = rest.post("/v2/repository/index", &[], body).await?.expect_success()?;
            let own = index
                .as_array()
                .into_iter()
                .flatten()
                .find(|entry| entry["name"] == json!(rest.model));
            let Some(own) = own else {
                return Err(Stop::Fail(format!("body {body:?}: the model is not in {index}")));
            };
            ensure!(
                own["state"] == "READY",
                "body {body:?}: the model's state is {}",
                own["state"]
            );
        }
        Ok(())
    };
    runner
        .check(
            Extension,
            "rest.repository.index",
            "the index has the model as READY, whatever body asks",
            index,
        )
        .await;
    let load = async {
        offered()?;
        for verb in ["load", "unload"] {
            let path = format!("/v2/repository/models/slipway-conformance-no-such-model/{verb}");
            let answer = rest.post(&path, &[], "{}").await?;
            answer.expect_error()?;
            ensure!(answer.status < 500, "{verb}: status {}", answer.status);
        }
        Ok(())
    };
    runner
        .check(
            Extension,
            "rest.repository.unknown",
            "loading and unloading an unknown model is 4xx with a text",
            load,
        )
        .await;
}
