//! Requests and the check of answers: the Open Inference Protocol v2 in JSON, and Slipway's
//! feedback.

use http::HeaderMap;
use serde::Deserialize;
use serde_json::Value;

use crate::reason::AnswerDefect;

const REVISION: &str = slipway_contracts::headers::REVISION;
const SHIELDED: &str = slipway_contracts::headers::SHIELDED;
const PREDICTION_ID: &str = slipway_contracts::headers::PREDICTION_ID;

/// Body of an infer request.
pub(crate) fn infer_body(id: &str, input: &str) -> String {
    format!(r#"{{"id":"{id}","inputs":[{input}]}}"#)
}

/// Body of a feedback request.
pub(crate) fn feedback_body(items: &[(String, i64)]) -> String {
    let items: Vec<Value> = items
        .iter()
        .map(|(id, label)| serde_json::json!({"prediction_id": id, "label": label}))
        .collect();
    serde_json::json!({ "feedback": items }).to_string()
}

/// A well-formed answer.
#[derive(Debug, PartialEq)]
pub(crate) struct InferAnswer {
    /// The predicted label.
    pub(crate) label: i64,
    /// The token that feedback refers to.
    pub(crate) prediction_id: Option<String>,
}

#[derive(Deserialize)]
struct InferResponse {
    model_name: String,
    id: Option<String>,
    outputs: Vec<InferOutput>,
}

#[derive(Deserialize)]
struct InferOutput {
    name: String,
    datatype: String,
    shape: Vec<u64>,
    data: Vec<Value>,
}

/// Checks an answer with status 200: it must be of this model, repeat the id, and contain one label
/// for the single row.
pub(crate) fn check_answer(
    headers: &HeaderMap,
    body: &[u8],
    model: &str,
    id: &str,
) -> Result<InferAnswer, AnswerDefect> {
    let response: InferResponse = serde_json::from_slice(body).map_err(|_| AnswerDefect::Json)?;
    if response.id.as_deref() != Some(id) {
        return Err(AnswerDefect::Id);
    }
    if response.model_name != model {
        return Err(AnswerDefect::Model);
    }
    for output in &response.outputs {
        if output.shape.iter().product::<u64>() != output.data.len() as u64
            || output.shape.first() != Some(&1)
        {
            return Err(AnswerDefect::Shape);
        }
    }
    let label =
        response.outputs.iter().find(|output| output.name == "label").ok_or(AnswerDefect::Label)?;
    let value = match (label.datatype.as_str(), label.data.as_slice()) {
        ("INT64", [value]) => value.as_i64().ok_or(AnswerDefect::Label)?,
        _ => return Err(AnswerDefect::Label),
    };
    Ok(InferAnswer { label: value, prediction_id: header_text(headers, PREDICTION_ID) })
}

/// The revision that answered, and the one that it replaced.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct AnswerOrigin {
    /// The revision that answered.
    pub(crate) revision: Option<String>,
    /// The candidate in whose place it answered.
    pub(crate) shielded: Option<String>,
}

/// Reads the gateway's headers.
pub(crate) fn read_origin(headers: &HeaderMap) -> AnswerOrigin {
    AnswerOrigin {
        revision: header_text(headers, REVISION),
        shielded: header_text(headers, SHIELDED),
    }
}

/// Header values are copied into JSON and metrics, so only valid characters of a revision or a
/// token are accepted.
fn header_text(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.~=+/".contains(c);
    (!value.is_empty() && value.len() <= 4096 && value.chars().all(plain)).then(|| value.to_owned())
}

/// How many items of a feedback request were accepted according to its answer; all if the answer
/// does not say.
pub(crate) fn accepted_count(body: &[u8], sent: usize) -> u64 {
    let answer: Value = serde_json::from_slice(body).unwrap_or(Value::Null);
    answer.get("accepted").and_then(Value::as_u64).unwrap_or(sent as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(change: impl FnOnce(&mut Value)) -> Result<InferAnswer, AnswerDefect> {
        let mut body = serde_json::json!({
            "model_name": "digits", "model_version": "v1", "id": "a-1",
            "outputs": [
                {"name": "probabilities", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 0.5]},
                {"name": "label", "datatype": "INT64", "shape": [1], "data": [7]},
            ],
        });
        change(&mut body);
        let headers =
            HeaderMap::from_iter([(PREDICTION_ID.parse().unwrap(), "v2.token".parse().unwrap())]);
        check_answer(&headers, body.to_string().as_bytes(), "digits", "a-1")
    }

    #[test]
    fn a_right_answer_passes() {
        let expected = InferAnswer { label: 7, prediction_id: Some("v2.token".into()) };
        assert_eq!(answer(|_| ()), Ok(expected));
    }

    #[test]
    fn every_defect_has_its_name() {
        assert_eq!(answer(|body| body["id"] = "a-2".into()), Err(AnswerDefect::Id));
        assert_eq!(answer(|body| body["id"] = Value::Null), Err(AnswerDefect::Id));
        assert_eq!(answer(|body| body["model_name"] = "other".into()), Err(AnswerDefect::Model));
        assert_eq!(
            answer(|body| body["outputs"][0]["data"] = serde_json::json!([1])),
            Err(AnswerDefect::Shape)
        );
        assert_eq!(
            answer(|body| body["outputs"][1]["shape"] = serde_json::json!([2])),
            Err(AnswerDefect::Shape)
        );
        assert_eq!(
            answer(|body| body["outputs"][1]["name"] = "other".into()),
            Err(AnswerDefect::Label)
        );
        assert_eq!(
            answer(|body| body["outputs"][1]["data"] = serde_json::json!(["7"])),
            Err(AnswerDefect::Label)
        );
        assert_eq!(answer(|body| body["outputs"] = Value::Null), Err(AnswerDefect::Json));
        assert_eq!(
            check_answer(&HeaderMap::new(), b"<html>", "digits", "a-1"),
            Err(AnswerDefect::Json)
        );
    }

    #[test]
    fn headers_that_are_no_tokens_are_not_taken() {
        let mut headers = HeaderMap::new();
        headers.insert(REVISION, "0123456789".parse().unwrap());
        headers.insert(SHIELDED, "a\"b".parse().unwrap());
        assert_eq!(
            read_origin(&headers),
            AnswerOrigin { revision: Some("0123456789".into()), shielded: None }
        );
    }

    #[test]
    fn accepted_feedback_is_what_the_answer_says() {
        assert_eq!(accepted_count(br#"{"accepted":3,"rejected":1}"#, 4), 3);
        assert_eq!(accepted_count(b"", 4), 4);
    }
}
