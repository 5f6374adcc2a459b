//! Inference with JSON.

use serde_json::{Value, json};

use crate::model::{Model, Sample, flatten, request, same};
use crate::report::Group::{Recommended, Required};
use crate::rest::{Answer, Rest};
use crate::{Runner, Stop, Verdict, ensure, skip};

/// The outputs of an answer by name: their values, flat.
pub(crate) fn outputs(answer: &Value) -> Result<Vec<(String, Vec<Value>)>, Stop> {
    let list = answer.get("outputs").and_then(Value::as_array);
    let list = list.ok_or_else(|| Stop::Fail(format!("no array \"outputs\" in {}", short(answer))))?;
    let mut found = Vec::new();
    for output in list {
        let name =
            output.get("name").and_then(Value::as_str).ok_or_else(|| Stop::Fail("an output has no name".into()))?;
        let data = output.get("data").ok_or_else(|| Stop::Fail(format!("output {name:?} has no data")))?;
        let mut flat = Vec::new();
        flatten(data, &mut flat);
        found.push((name.to_owned(), flat));
    }
    Ok(found)
}

fn short(value: &Value) -> String {
    value.to_string().chars().take(200).collect()
}

/// That two answers say the same.
pub(crate) fn agree(a: &[(String, Vec<Value>)], b: &[(String, Vec<Value>)]) -> Verdict {
    for (name, values) in a {
        let Some((_, others)) = b.iter().find(|(other, _)| other == name) else {
            return Err(Stop::Fail(format!("output {name:?} is in one answer only")));
        };
        ensure!(same(values, others), "output {name:?} differs");
    }
    ensure!(a.len() == b.len(), "one answer has {} outputs, the other {}", a.len(), b.len());
    Ok(())
}

/// The answer to the request of ones, for comparison.
pub(crate) async fn reference(rest: &Rest, model: &Model) -> Result<Vec<(String, Vec<Value>)>, Stop> {
    if !model.typed() {
        return skip("the model has FP16 or BF16, which has no form in JSON");
    }
    outputs(&rest.infer(&request(model)).await?.success()?)
}

fn well_formed(answer: &Value, model: &Model) -> Verdict {
    ensure!(answer["model_name"] == json!(model.name), "model_name is {}", answer["model_name"]);
    let found = outputs(answer)?;
    ensure!(found.len() == model.outputs.len(), "{} outputs instead of {}", found.len(), model.outputs.len());
    for (spec, output) in model.outputs.iter().filter_map(|spec| {
        let output = answer["outputs"].as_array()?.iter().find(|o| o["name"] == json!(spec.name))?;
        Some((spec, output))
    }) {
        let name = &spec.name;
        ensure!(output["datatype"] == json!(spec.datatype), "output {name:?}: datatype {}", output["datatype"]);
        let shape = output["shape"].as_array().and_then(|s| s.iter().map(Value::as_i64).collect::<Option<Vec<_>>>());
        let Some(shape) = shape else { return Err(Stop::Fail(format!("output {name:?}: shape {}", output["shape"]))) };
        let (count, elements) = (shape.iter().product::<i64>(), found.iter().find(|(n, _)| n == name));
        let elements = elements.map_or(0, |(_, values)| values.len());
        ensure!(usize::try_from(count) == Ok(elements), "output {name:?}: shape {shape:?} and {elements} elements");
    }
    for (name, _) in &found {
        ensure!(model.outputs.iter().any(|spec| spec.name == *name), "output {name:?} is not in the metadata");
    }
    Ok(())
}

/// Runs them.
pub(crate) async fn run(runner: &mut Runner, rest: &Rest, model: &Model) {
    let untyped = || skip::<Value>("the model has FP16 or BF16, which has no form in JSON");
    let base = || if model.typed() { Ok(request(model)) } else { untyped() };
    let flat = async { well_formed(&rest.infer(&base()?).await?.success()?, model) };
    runner
        .check(Required, "rest.infer.json", "a JSON request has all outputs, as the metadata declares them", flat)
        .await;
    let nested = async {
        let mut body = base()?;
        body["inputs"] = Sample::all(model)
            .iter()
            .map(|s| json!({"name": s.spec.name, "shape": s.shape, "datatype": s.spec.datatype, "data": s.nested()}))
            .collect();
        agree(&outputs(&rest.infer(&body).await?.success()?)?, &reference(rest, model).await?)
    };
    runner.check(Required, "rest.infer.nested", "nested data gives what flat data gives", nested).await;
    let id = async {
        let mut body = base()?;
        body["id"] = json!("conformance-1");
        let answer = rest.infer(&body).await?.success()?;
        ensure!(answer["id"] == json!("conformance-1"), "id is {}", answer["id"]);
        Ok(())
    };
    runner.check(Required, "rest.infer.id", "the id of a request is echoed", id).await;
    let filter = async {
        let (mut body, wanted) = (base()?, model.outputs.last().map(|spec| spec.name.clone()).unwrap_or_default());
        body["outputs"] = json!([{"name": wanted}]);
        let found = outputs(&rest.infer(&body).await?.success()?)?;
        ensure!(found.len() == 1 && found[0].0 == wanted, "asked for {wanted:?}, got {:?}", names(&found));
        Ok(())
    };
    runner.check(Required, "rest.infer.outputs", "only the outputs that are asked for come", filter).await;
    let version = async {
        let Some(version) = model.versions.first() else { return skip("the metadata lists no versions") };
        let path = format!("/v2/models/{}/versions/{version}/infer", rest.model);
        let answer = rest.post(&path, &[], base()?.to_string()).await?;
        if answer.status == 501 {
            return skip("the server answers 501 to versions");
        }
        agree(&outputs(&answer.success()?)?, &reference(rest, model).await?)
    };
    runner.check(Required, "rest.infer.version", "a listed version can be used in the path", version).await;
    let parameters = async {
        let mut body = base()?;
        body["parameters"] = json!({"a_string": "s", "a_number": 1, "a_bool": true});
        rest.infer(&body).await?.success().map(drop)
    };
    runner.check(Required, "rest.infer.parameters", "unknown parameters do no harm", parameters).await;
    robust(runner, rest, model).await;
}

fn names(found: &[(String, Vec<Value>)]) -> Vec<&str> {
    found.iter().map(|(name, _)| name.as_str()).collect()
}

async fn robust(runner: &mut Runner, rest: &Rest, model: &Model) {
    let content_type = async {
        let answer = rest.infer(&request_or_skip(model)?).await?;
        let kind = kind(&answer);
        ensure!(kind.starts_with("application/json"), "content type {kind:?}");
        Ok(())
    };
    runner.check(Recommended, "rest.infer.content_type", "an answer in JSON says that it is", content_type).await;
    let reordered = async {
        if model.inputs.len() < 2 {
            return skip("the model has one input");
        }
        let mut body = request_or_skip(model)?;
        if let Some(inputs) = body["inputs"].as_array_mut() {
            inputs.reverse();
        }
        agree(&outputs(&rest.infer(&body).await?.success()?)?, &reference(rest, model).await?)
    };
    runner.check(Recommended, "rest.infer.order", "inputs are matched by name, not by order", reordered).await;
    let at_once = async {
        let body = request_or_skip(model)?;
        let wanted = reference(rest, model).await?;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let (rest, body) = (rest.clone(), body.clone());
            tasks.spawn(async move { outputs(&rest.infer(&body).await?.success()?) });
        }
        while let Some(done) = tasks.join_next().await {
            agree(&done.map_err(|e| Stop::Fail(e.to_string()))??, &wanted)?;
        }
        Ok(())
    };
    runner.check(Recommended, "rest.infer.concurrent", "16 requests at one time have the answer of one", at_once).await;
}

fn request_or_skip(model: &Model) -> Result<Value, Stop> {
    if model.typed() { Ok(request(model)) } else { skip("the model has FP16 or BF16, which has no form in JSON") }
}

fn kind(answer: &Answer) -> String {
    answer.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
}
