//! Requests that must be rejected. An error with a text is required. Status 400 and a text that
//! says what is wrong are recommended: a 5xx makes a rollout blame the model, and a 200 is a wrong
//! answer.

use serde_json::{Value, json};

use crate::model::{ModelMetadata, sample_request};
use crate::report::CheckGroup::{Recommended, Required};
use crate::rest::RestClient;
use crate::{CheckRunner, Stop, ensure, skip_check};

/// A request that is wrong in one way, or why this model cannot be used for the check.
type InvalidRequest = Result<String, Stop>;

struct ErrorCase {
    required: Option<(&'static str, &'static str)>,
    status_400: (&'static str, &'static str),
    body: InvalidRequest,
    /// What the text should name.
    names: Option<String>,
}

fn edited_request(model: &ModelMetadata, edit: impl FnOnce(&mut Value)) -> InvalidRequest {
    if !model.has_typed_form() {
        return skip_check("the model has FP16 or BF16, which has no form in JSON");
    }
    let mut body = sample_request(model);
    edit(&mut body);
    Ok(body.to_string())
}

fn has_numeric_input(model: &ModelMetadata) -> bool {
    model.inputs.first().is_some_and(|s| !matches!(s.datatype.as_str(), "BYTES" | "BOOL"))
}

fn error_cases(model: &ModelMetadata) -> Vec<ErrorCase> {
    let first = model.inputs.first().map(|s| s.name.clone()).unwrap_or_default();
    let case = |required, status_400, body| ErrorCase { required, status_400, body, names: None };
    let mut cases = vec![
        case(
            Some(("rest.error.json", "a body that is no JSON is an error with a text")),
            ("rest.error.json_400", "... and 400"),
            Ok("{".into()),
        ),
        case(None, ("rest.error.empty_400", "an empty body is 400"), Ok(String::new())),
        case(None, ("rest.error.no_inputs_400", "{} is 400"), Ok("{}".into())),
        case(
            Some(("rest.error.missing_input", "a missing input is an error with a text")),
            ("rest.error.missing_input_400", "... and 400, naming the input"),
            edited_request(model, |b| drop(b["inputs"].as_array_mut().map(|list| list.remove(0)))),
        ),
        case(
            None,
            ("rest.error.unknown_input_400", "an unknown input is 400"),
            edited_request(model, |b| {
                b["inputs"][0]["name"] = json!("slipway-conformance-no-such-input")
            }),
        ),
        case(
            None,
            ("rest.error.duplicate_input_400", "an input that is given twice is 400"),
            edited_request(model, |b| {
                let again = b["inputs"][0].clone();
                if let Some(list) = b["inputs"].as_array_mut() {
                    list.push(again);
                }
            }),
        ),
        case(
            None,
            ("rest.error.unknown_output_400", "an unknown output is 400"),
            edited_request(model, |b| {
                b["outputs"] = json!([{"name": "slipway-conformance-no-such-output"}])
            }),
        ),
        case(
            Some(("rest.error.few", "too few elements are an error with a text")),
            ("rest.error.few_400", "... and 400"),
            edited_request(model, |b| b["inputs"][0]["data"] = json!([])),
        ),
        case(
            Some(("rest.error.many", "too many elements are an error with a text")),
            ("rest.error.many_400", "... and 400"),
            edited_request(model, |b| {
                if let Some(list) = b["inputs"][0]["data"].as_array_mut() {
                    list.extend_from_within(..);
                }
            }),
        ),
        case(
            None,
            ("rest.error.object_400", "an object in the data is 400"),
            edited_request(model, |b| b["inputs"][0]["data"][0] = json!({})),
        ),
        case(
            None,
            ("rest.error.datatype_400", "a datatype that is not the model's is 400"),
            edited_request(model, |b| {
                let other = if b["inputs"][0]["datatype"] == "FP64" { "FP32" } else { "FP64" };
                b["inputs"][0]["datatype"] = json!(other);
            }),
        ),
        case(
            None,
            ("rest.error.datatype_unknown_400", "a datatype of no name is 400"),
            edited_request(model, |b| b["inputs"][0]["datatype"] = json!("FLOAT")),
        ),
        case(
            None,
            ("rest.error.negative_shape_400", "a negative dimension is 400"),
            edited_request(model, |b| b["inputs"][0]["shape"][0] = json!(-1)),
        ),
        case(
            None,
            ("rest.error.numeric_id_400", "an id that is a number is 400"),
            edited_request(model, |b| b["id"] = json!(7)),
        ),
    ];
    let text = if has_numeric_input(model) {
        edited_request(model, |b| b["inputs"][0]["data"][0] = json!("text"))
    } else {
        skip_check("the first input is no number")
    };
    cases.push(case(None, ("rest.error.text_400", "a text among numbers is 400"), text));
    let overflow = match model.inputs.iter().position(|s| s.datatype == "INT32") {
        Some(i) => edited_request(model, |b| b["inputs"][i]["data"][0] = json!(5_000_000_000_u64)),
        None => skip_check("the model has no INT32 input"),
    };
    cases.push(case(
        None,
        ("rest.error.overflow_400", "a number outside its datatype is 400, not another number"),
        overflow,
    ));
    if let Some(missing) =
        cases.iter_mut().find(|c| c.status_400.0 == "rest.error.missing_input_400")
    {
        missing.names = Some(first);
    }
    cases
}

pub(crate) async fn check_errors(
    runner: &mut CheckRunner,
    rest: &RestClient,
    model: &ModelMetadata,
) {
    for ErrorCase { required, status_400, body, names } in error_cases(model) {
        let send = async |body: InvalidRequest| rest.post(&rest.infer_path(), &[], body?).await;
        let again = match &body {
            Ok(body) => Ok(body.clone()),
            Err(Stop::Skip(why)) => skip_check(why.clone()),
            Err(Stop::Fail(why)) => Err(Stop::Fail(why.clone())),
        };
        if let Some((name, wants)) = required {
            let refused = async { send(again).await?.expect_error().map(drop) };
            runner.check(Required, name, wants, refused).await;
        }
        let is_400 = async {
            let answer = send(body).await?;
            ensure!(answer.status == 400, "status {}: {}", answer.status, answer.text());
            let text = answer.expect_error()?;
            if let Some(part) = names {
                ensure!(text.contains(&part), "the text does not name {part:?}: {text}");
            }
            Ok(())
        };
        runner.check(Recommended, status_400.0, status_400.1, is_400).await;
    }
    let unknown = async {
        let answer = rest
            .post(
                "/v2/models/slipway-conformance-no-such-model/infer",
                &[],
                sample_request(model).to_string(),
            )
            .await?;
        answer.expect_error().map(drop)
    };
    runner
        .check(
            Required,
            "rest.error.model",
            "inference of an unknown model is an error with a text",
            unknown,
        )
        .await;
    let alive = async {
        let answer = rest.get("/v2/health/ready").await?;
        ensure!(answer.status == 200, "status {}", answer.status);
        rest.get(&format!("/v2/models/{}/ready", rest.model)).await.map(drop)
    };
    runner
        .check(Required, "rest.error.survived", "the server is ready after all of these", alive)
        .await;
}
