//! Feature rows: writes them, and fills requests that name an entity.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::try_join_all;
use http::{Method, Request, StatusCode};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use slipway_contracts::paths::MODELS;
use slipway_oip::inference::ModelInferRequest;
use slipway_oip::inference::infer_parameter::ParameterChoice;
use slipway_runtime_cache::features::{FeatureRow, FeatureRowCache, MAX_ENTITY, parse_row};
use slipway_runtime_engine::signature::{ModelSignature, TensorSignature};
use slipway_runtime_predict::models::LoadedModel;

use super::error::ApiError;
use super::{AppState, FullResponse, OFFLOAD_BYTES, body, json_response, parse_off_thread};

/// Largest number of rows in one write.
const MAX_ROWS: usize = 10_000;
/// Rows that are read or written concurrently for one request.
const CONCURRENT_ROWS: usize = 64;
/// The parameter of a request that names its rows.
const ENTITY: &str = "entity";

/// Parses `/v2/models/{m}/features` or `/v2/models/{m}/features/{entity}`: the model, and the
/// entity, still percent-encoded.
pub(super) fn parse_path(path: &str) -> Option<(&str, Option<&str>)> {
    let (model, rest) = path.strip_prefix(MODELS)?.split_once('/')?;
    match rest.strip_prefix("features")? {
        "" => Some((model, None)),
        rest => rest
            .strip_prefix('/')
            .filter(|entity| !entity.is_empty() && !entity.contains('/'))
            .map(|e| (model, Some(e))),
    }
}

/// Stores the rows of a request.
pub(super) async fn store_rows(
    app: &AppState,
    name: &str,
    entity: Option<&str>,
    request: Request<Incoming>,
) -> Result<FullResponse, ApiError> {
    let Some(features) = &app.predictor.caches.features else {
        return Err(ApiError::NotFound(
            "feature rows are not kept here; set spec.server.cache.features (--feature-cache)"
                .into(),
        ));
    };
    let wanted = if entity.is_some() { Method::PUT } else { Method::POST };
    if request.method() != wanted {
        return Err(ApiError::MethodNotAllowed(if entity.is_some() { "PUT" } else { "POST" }));
    }
    let entity = entity.map(percent_decode).transpose()?;
    let model = app.predictor.models.get(name, None)?;
    let (head, incoming) = request.into_parts();
    let encoding = body::content_encoding(&head.headers)?;
    let (limit, time) = (app.args.body_limit(&head.headers), app.args.request_timeout());
    let work = async {
        let bytes = body::decode_body(
            body::collect_body(&head.headers, incoming, limit).await?,
            encoding,
            limit,
        )?;
        let rows = parse_rows(&bytes, entity)?;
        // All rows are checked before the first is stored.
        let rows = rows
            .into_iter()
            .map(|(entity, text)| validate_row(&model.signature, entity, text))
            .collect::<Result<Vec<_>, _>>()?;
        let stored = rows.len();
        for some in rows.chunks(CONCURRENT_ROWS) {
            let writes = some
                .iter()
                .map(|(entity, text, row)| features.write(name, entity, text, row.clone()));
            try_join_all(writes).await?;
        }
        Ok(json_response(StatusCode::OK, &json!({"stored": stored})))
    };
    tokio::time::timeout(time, work)
        .await
        .unwrap_or_else(|_| Err(ApiError::Deadline(time.as_millis())))
}

#[derive(Deserialize)]
struct BulkFeatures {
    features: BTreeMap<String, Box<RawValue>>,
}

fn parse_rows(bytes: &[u8], entity: Option<String>) -> Result<Vec<(String, String)>, ApiError> {
    let mended = slipway_runtime_protocol::without_nan(bytes);
    let text = std::str::from_utf8(mended.as_deref().unwrap_or(bytes));
    let text = text.map_err(|_| ApiError::bad_request("the body is not UTF-8"))?;
    let Some(entity) = entity else {
        let bulk: BulkFeatures = serde_json::from_str(text).map_err(|e| {
            ApiError::bad_request(format!(
                "want {{\"features\": {{\"<entity>\": {{\"<input>\": <its row>}}}}}}: {e}"
            ))
        })?;
        if bulk.features.len() > MAX_ROWS {
            return Err(ApiError::bad_request(format!(
                "{} rows; send at most {MAX_ROWS} at once",
                bulk.features.len()
            )));
        }
        return Ok(bulk
            .features
            .into_iter()
            .map(|(entity, row)| (entity, row.get().to_owned()))
            .collect());
    };
    Ok(vec![(entity, text.to_owned())])
}

/// Parses a row like a request of one row, so that every stored row can be used.
fn validate_row(
    signature: &ModelSignature,
    entity: String,
    text: String,
) -> Result<(String, String, FeatureRow), ApiError> {
    let wrong =
        |what: String| ApiError::bad_request(format!("feature row of entity {entity:?}: {what}"));
    if entity.is_empty() || entity.len() > MAX_ENTITY {
        return Err(wrong(format!("the name of an entity has 1 to {MAX_ENTITY} bytes")));
    }
    let row = parse_row(&text).map_err(wrong)?;
    if let Some(unknown) =
        row.keys().find(|name| !signature.inputs.iter().any(|spec| spec.name == **name))
    {
        let names = ModelSignature::quoted_names(&signature.inputs);
        return Err(wrong(format!("the model has no input {unknown:?}; it has {names}")));
    }
    let inputs: Vec<TensorSignature> =
        signature.inputs.iter().filter(|spec| row.contains_key(&spec.name)).cloned().collect();
    let one = [(entity.as_str(), &row)];
    let filled =
        inputs.iter().map(|spec| render_input(spec, &one)).collect::<Result<Vec<_>, _>>()?;
    let request = format!("{{\"inputs\":[{}]}}", filled.join(","));
    slipway_runtime_protocol::parse_request(
        request.as_bytes(),
        None,
        &ModelSignature { inputs, outputs: Vec::new() },
    )
    .map_err(|e| wrong(e.to_string()))?;
    Ok((entity, text, row))
}

/// One input of a request, as JSON, from the rows of these entities.
fn render_input(spec: &TensorSignature, rows: &[(&str, &FeatureRow)]) -> Result<String, ApiError> {
    let name = &spec.name;
    let trailing = spec
        .shape
        .iter()
        .skip(1)
        .copied()
        .collect::<Option<Vec<_>>>()
        .filter(|_| spec.shape.first() == Some(&None));
    let trailing = trailing.ok_or_else(|| {
        ApiError::bad_request(format!(
            "input {name:?} cannot come from feature rows: only its first dimension may be open, and must be; send it"
        ))
    })?;
    let data = rows.iter().map(|(entity, row)| {
        row.get(name).map(|value| value.get()).ok_or_else(|| {
            ApiError::bad_request(format!(
                "the feature row of entity {entity:?} has no input {name:?}; write one that has, or send the input"
            ))
        })
    });
    let data = data.collect::<Result<Vec<_>, _>>()?.join(",");
    let shape: Vec<usize> = std::iter::once(rows.len()).chain(trailing).collect();
    let head = json!({"name": name, "shape": shape, "datatype": spec.datatype.name()}).to_string();
    Ok(format!("{},\"data\":[{data}]}}", head.trim_end_matches('}')))
}

/// The body, completed with the inputs from the rows of its entities; unchanged when it names no
/// entity.
///
/// # Errors
/// `BadRequest`, `NotFound` for an entity without a row, `Unavailable`.
pub(super) async fn fill_inputs(
    app: &AppState,
    features: &FeatureRowCache,
    model: &LoadedModel,
    body: Bytes,
    header_length: Option<usize>,
) -> Result<(Bytes, Option<usize>), ApiError> {
    const NAME: &[u8] = b"\"entity\"";
    let Some((head, blobs)) = body.split_at_checked(header_length.unwrap_or(body.len())) else {
        return Ok((body, header_length));
    };
    if !head.windows(NAME.len()).any(|window| window == NAME) {
        return Ok((body, header_length));
    }
    let mended = slipway_runtime_protocol::without_nan(head);
    // An invalid body is rejected later, when the request is parsed.
    let Ok(mut request) = serde_json::from_slice::<BTreeMap<String, Box<RawValue>>>(
        mended.as_deref().unwrap_or(head),
    ) else {
        return Ok((body, header_length));
    };
    let Some(entities) = take_entities(&mut request, app.predictor.max_rows(true))? else {
        return Ok((body, header_length));
    };
    let found = load_rows(features, model, &entities).await?;
    let rows = rows_by_entity(&entities, &found);
    let given: Vec<Box<RawValue>> = match request.get("inputs") {
        Some(inputs) => serde_json::from_str(inputs.get())
            .map_err(|e| ApiError::bad_request(format!("inputs: {e}")))?,
        None => Vec::new(),
    };
    let names: Vec<String> = given.iter().filter_map(|input| input_name(input.get())).collect();
    let absent = model.signature.inputs.iter().filter(|spec| !names.contains(&spec.name));
    let filled = absent.map(|spec| render_input(spec, &rows)).collect::<Result<Vec<_>, _>>()?;
    let inputs: Vec<&str> =
        given.iter().map(|input| input.get()).chain(filled.iter().map(String::as_str)).collect();
    let inputs = RawValue::from_string(format!("[{}]", inputs.join(",")))
        .map_err(|e| ApiError::Internal(e.to_string()))?;
    request.insert("inputs".to_owned(), inputs);
    let mut whole = serde_json::to_vec(&request).map_err(|e| ApiError::Internal(e.to_string()))?;
    let length = whole.len();
    whole.extend_from_slice(blobs);
    Ok((whole.into(), header_length.map(|_| length)))
}

/// Like [`fill_inputs`], for a gRPC message, whose parameters cannot be lists: several entities are
/// a JSON list in one string.
///
/// # Errors
/// Those of [`fill_inputs`].
pub(super) async fn fill_message(
    app: &AppState,
    features: &FeatureRowCache,
    model: &LoadedModel,
    message: &mut ModelInferRequest,
) -> Result<(), ApiError> {
    let Some(parameter) = message.parameters.remove(ENTITY) else { return Ok(()) };
    let entity = match parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => match serde_json::from_str(&text) {
            Ok(list @ Value::Array(_)) => list,
            _ => Value::String(text),
        },
        _ => Value::Null,
    };
    let entities = parse_entities(entity, app.predictor.max_rows(true))?;
    let found = load_rows(features, model, &entities).await?;
    let rows = rows_by_entity(&entities, &found);
    let absent =
        |spec: &&TensorSignature| message.inputs.iter().all(|input| input.name != spec.name);
    let absent: Vec<TensorSignature> =
        model.signature.inputs.iter().filter(absent).cloned().collect();
    let inputs =
        absent.iter().map(|spec| render_input(spec, &rows)).collect::<Result<Vec<_>, _>>()?;
    let body = format!("{{\"inputs\":[{}]}}", inputs.join(","));
    let (large, signature) =
        (body.len() >= OFFLOAD_BYTES, ModelSignature { inputs: absent, outputs: Vec::new() });
    let read = move || {
        slipway_runtime_protocol::parse_request(body.as_bytes(), None, &signature)
            .map(|filled| (signature.inputs, filled))
    };
    let (specs, filled) = if large { parse_off_thread(read).await? } else { read()? };
    slipway_runtime_protocol::grpc::append_inputs(message, &specs, filled.inputs);
    Ok(())
}

async fn load_rows(
    features: &FeatureRowCache,
    model: &LoadedModel,
    entities: &[String],
) -> Result<Vec<Arc<FeatureRow>>, ApiError> {
    let mut found = Vec::with_capacity(entities.len());
    for some in entities.chunks(CONCURRENT_ROWS) {
        found.extend(
            try_join_all(some.iter().map(|entity| features.row(&model.name, entity))).await?,
        );
    }
    Ok(found)
}

fn rows_by_entity<'a>(
    entities: &'a [String],
    rows: &'a [Arc<FeatureRow>],
) -> Vec<(&'a str, &'a FeatureRow)> {
    entities.iter().map(String::as_str).zip(rows.iter().map(AsRef::as_ref)).collect()
}

fn input_name(input: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct InputName<'a> {
        #[serde(borrow)]
        name: Cow<'a, str>,
    }
    serde_json::from_str::<InputName<'_>>(input).ok().map(|input| input.name.into_owned())
}

/// Removes the parameter `entity` from a request and returns it.
fn take_entities(
    request: &mut BTreeMap<String, Box<RawValue>>,
    most: usize,
) -> Result<Option<Vec<String>>, ApiError> {
    let Some(mut parameters) = request
        .get("parameters")
        .and_then(|raw| serde_json::from_str::<Map<String, Value>>(raw.get()).ok())
    else {
        return Ok(None);
    };
    let Some(entity) = parameters.remove(ENTITY) else { return Ok(None) };
    let list = parse_entities(entity, most)?;
    let rest = serde_json::value::to_raw_value(&parameters)
        .map_err(|e| ApiError::Internal(e.to_string()))?;
    request.insert("parameters".to_owned(), rest);
    Ok(Some(list))
}

/// The entities of a parameter: one string, or a list with one for each row.
fn parse_entities(entity: Value, most: usize) -> Result<Vec<String>, ApiError> {
    let wrong = || {
        ApiError::bad_request(format!(
            "request.parameters.entity must be a text of 1 to {MAX_ENTITY} bytes, or a list of 1 to {most} of them, one for each row"
        ))
    };
    let list = match entity {
        Value::String(one) => vec![one],
        Value::Array(many) => many
            .into_iter()
            .map(|it| it.as_str().map(str::to_owned))
            .collect::<Option<_>>()
            .ok_or_else(wrong)?,
        _ => return Err(wrong()),
    };
    let fits = !list.is_empty()
        && list.len() <= most
        && list.iter().all(|it| (1..=MAX_ENTITY).contains(&it.len()));
    if fits { Ok(list) } else { Err(wrong()) }
}

/// Decodes percent-encoding.
fn percent_decode(text: &str) -> Result<String, ApiError> {
    let wrong = || {
        ApiError::bad_request(format!(
            "the entity {text:?} in the path is not percent-encoded UTF-8"
        ))
    };
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let mut digit = || {
                    rest.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(wrong)
                };
                u8::try_from(digit()? * 16 + digit()?).map_err(|_| wrong())?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(parse_path("/v2/models/m/features"), Some(("m", None)));
        assert_eq!(parse_path("/v2/models/m/features/u%2F1"), Some(("m", Some("u%2F1"))));
        for other in [
            "/v2/models/m/features/",
            "/v2/models/m/features/a/b",
            "/v2/models/m/infer",
            "/v2/models/m",
            "/v2",
        ] {
            assert_eq!(parse_path(other), None, "{other}");
        }
        assert_eq!(percent_decode("u%2F1%C3%A9").as_deref(), Ok("u/1é"));
        assert!(
            percent_decode("%").is_err()
                && percent_decode("%zz").is_err()
                && percent_decode("%ff").is_err()
        );
    }
}
