//! Checks of inference with JSON.

use serde_json::{Value, json};

use crate::model::{ModelMetadata, SampleInput, flatten_data, sample_request, values_match};
use crate::report::CheckGroup::{Recommended, Required};
use crate::rest::{RestClient, RestResponse};
use crate::{CheckRunner, CheckVerdict, Stop, ensure, skip_check};

/// The outputs of an answer by name, with their values flattened.
pub(crate) fn json_outputs(answer: &Value) -> Result<Vec<(String, Vec<Value>)>, Stop> {
    let list = answer.get("outputs").and_then(Value::as_array);
    let list = list
        .ok_or_else(|| Stop::Fail(format!("no array \"outputs\" in {}", truncated_text(answer))))?;
    let mut found = Vec::new();
    for output in list {
        let name = output
            .get("name")
            .and_then(Value::as_str)
            .ok_or_else(|| Stop::Fail("an output has no name".into()))?;
        let data =
            output.get("data").ok_or_else(|| Stop::Fail(format!("output {name:?} has no data")))?;
        let mut flat = Vec::new();
        flatten_data(data, &mut flat);
        found.push((name.to_owned(), flat));
    }
    Ok(found)
}

fn truncated_text(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

/// Fails unless two answers have the same outputs.
pub(crate) fn ensure_same_outputs(
    a: &[(String, Vec<Value>)],
    b: &[(String, Vec<Value>)],
) -> CheckVerdict {
    for (name, values) in a {
        let Some((_, others)) = b.iter().find(|(other, _)| other == name) else {
            return Err(Stop::Fail(format!("output {name:?} is in one answer only")));
        };
        ensure!(values_match(values, others), "output {name:?} differs");
    }
    ensure!(a.len() == b.len(), "one answer has {} outputs, the other {}", a.len(), b.len());
    Ok(())
}

/// The answer to the request of ones, for comparison.
pub(crate) async fn reference_outputs(
    rest: &RestClient,
    model: &ModelMetadata,
) -> Result<Vec<(String, Vec<Value>)>, Stop> {
    if !model.has_typed_form() {
        return skip_check("the model has FP16 or BF16, which has no form in JSON");
    }
    json_outputs(&rest.infer(&sample_request(model)).await?.expect_success()?)
}

fn check_well_formed(answer: &Value, model: &ModelMetadata) -> CheckVerdict {
    ensure!(answer["model_name"] == json!(model.name), "model_name is {}", answer["model_name"]);
    let found = json_outputs(answer)?;
    ensure!(
        found.len() == model.outputs.len(),
        "{} outputs instead of {}",
        found.len(),
        model.outputs.len()
    );
    for (spec, output) in model.outputs.iter().filter_map(|spec| {
        let output =
            answer["outputs"].as_array()?.iter().find(|o| o["name"] == json!(spec.name))?;
        Some((spec, output))
    }) {
        let name = &spec.name;
        ensure!(
            output["datatype"] == json!(spec.datatype),
            "output {name:?}: datatype {}",
            output["datatype"]
        );
        let shape = output["shape"]
            .as_array()
            .and_then(|s| s.iter().map(Value::as_i64).collect::<Option<Vec<_>>>());
        let Some(shape) = shape else {
            return Err(Stop::Fail(format!("output {name:?}: shape {}", output["shape"])));
        };
        let (count, elements) =
            (shape.iter().product::<i64>(), found.iter().find(|(n, _)| n == name));
        let elements = elements.map_or(0, |(_, values)| values.len());
        ensure!(
            usize::try_from(count) == Ok(elements),
            "output {name:?}: shape {shape:?} and {elements} elements"
        );
    }
    for (name, _) in &found {
        ensure!(
            model.outputs.iter().any(|spec| spec.name == *name),
            "output {name:?} is not in the metadata"
        );
    }
    Ok(())
}

pub(crate) async fn check_inference(
    runner: &mut CheckRunner,
    rest: &RestClient,
    model: &ModelMetadata,
) {
    let untyped = || skip_check::<Value>("the model has FP16 or BF16, which has no form in JSON");
    let base = || if model.has_typed_form() { Ok(sample_request(model)) } else { untyped() };
    let flat = async { check_well_formed(&rest.infer(&base()?).await?.expect_success()?, model) };
    runner
        .check(
            Required,
            "rest.infer.json",
            "a JSON request has all outputs, as the metadata declares them",
            flat,
        )
        .await;
    let nested = async {
        let mut body = base()?;
        body["inputs"] = SampleInput::for_model(model)
            .iter()
            .map(|s| json!({"name": s.spec.name, "shape": s.shape, "datatype": s.spec.datatype, "data": s.nested_data()}))
            .collect();
        ensure_same_outputs(
            &json_outputs(&rest.infer(&body).await?.expect_success()?)?,
            &reference_outputs(rest, model).await?,
        )
    };
    runner
        .check(Required, "rest.infer.nested", "nested data gives what flat data gives", nested)
        .await;
    let id = async {
        let mut body = base()?;
        body["id"] = json!("conformance-1");
        let answer = rest.infer(&body).await?.expect_success()?;
        ensure!(answer["id"] == json!("conformance-1"), "id is {}", answer["id"]);
        Ok(())
    };
    runner.check(Required, "rest.infer.id", "the id of a request is echoed", id).await;
    let filter = async {
        let (mut body, wanted) =
            (base()?, model.outputs.last().map(|spec| spec.name.clone()).unwrap_or_default());
        body["outputs"] = json!([{"name": wanted}]);
        let found = json_outputs(&rest.infer(&body).await?.expect_success()?)?;
        ensure!(
            found.len() == 1 && found[0].0 == wanted,
            "asked for {wanted:?}, got {:?}",
            output_names(&found)
        );
        Ok(())
    };
    runner
        .check(Required, "rest.infer.outputs", "only the outputs that are asked for come", filter)
        .await;
    let version = async {
        let Some(version) = model.versions.first() else {
            return skip_check("the metadata lists no versions");
        };
        let path = format!("/v2/models/{}/versions/{version}/infer", rest.model);
        let answer = rest.post(&path, &[], base()?.to_string()).await?;
        if answer.status == 501 {
            return skip_check("the server answers 501 to versions");
        }
        ensure_same_outputs(
            &json_outputs(&answer.expect_success()?)?,
            &reference_outputs(rest, model).await?,
        )
    };
    runner
        .check(Required, "rest.infer.version", "a listed version can be used in the path", version)
        .await;
    let parameters = async {
        let mut body = base()?;
        body["parameters"] = json!({"a_string": "s", "a_number": 1, "a_bool": true});
        rest.infer(&body).await?.expect_success().map(drop)
    };
    runner
        .check(Required, "rest.infer.parameters", "unknown parameters do no harm", parameters)
        .await;
    check_robustness(runner, rest, model).await;
}

fn output_names(found: &[(String, Vec<Value>)]) -> Vec<&str> {
    found.iter().map(|(name, _)| name.as_str()).collect()
}

async fn check_robustness(runner: &mut CheckRunner, rest: &RestClient, model: &ModelMetadata) {
    let content_type = async {
        let answer = rest.infer(&request_or_skip(model)?).await?;
        let kind = media_type(&answer);
        ensure!(kind.starts_with("application/json"), "content type {kind:?}");
        Ok(())
    };
    runner
        .check(
            Recommended,
            "rest.infer.content_type",
            "an answer in JSON says that it is",
            content_type,
        )
        .await;
    let reordered = async {
        if model.inputs.len() < 2 {
            return skip_check("the model has one input");
        }
        let mut body = request_or_skip(model)?;
        if let Some(inputs) = body["inputs"].as_array_mut() {
            inputs.reverse();
        }
        ensure_same_outputs(
            &json_outputs(&rest.infer(&body).await?.expect_success()?)?,
            &reference_outputs(rest, model).await?,
        )
    };
    runner
        .check(
            Recommended,
            "rest.infer.order",
            "inputs are matched by name, not by order",
            reordered,
        )
        .await;
    let at_once = async {
        let body = request_or_skip(model)?;
        let wanted = reference_outputs(rest, model).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (rest, body) = (rest.clone(), body.clone());
            tasks.spawn(async move { json_outputs(&rest.infer(&body).await?.expect_success()?) });
        }
        while let Some(done) = tasks.join_next().await {
            ensure_same_outputs(&done.map_err(|e| Stop::Fail(e.to_string()))??, &wanted)?;
        }
        Ok(())
    };
    runner
        .check(
            Recommended,
            "rest.infer.concurrent",
            "16 requests at one time have the answer of one",
            at_once,
        )
        .await;
}

fn request_or_skip(model: &ModelMetadata) -> Result<Value, Stop> {
    if model.has_typed_form() {
        Ok(sample_request(model))
    } else {
        skip_check("the model has FP16 or BF16, which has no form in JSON")
    }
}

fn media_type(answer: &RestResponse) -> String {
    answer.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}
