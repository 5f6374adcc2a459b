//! Parses JSON part by part, so that an error names its place.

use serde::Deserialize;
use serde_json::value::RawValue;
use slipway_runtime_engine::error::PredictError;

/// The text with `null` for each bare `NaN`, which is how Python's `json` writes a missing number;
/// `None` when there is none.
pub fn without_nan(json: &[u8]) -> Option<Vec<u8>> {
    const NAN: &[u8] = b"NaN";
    if !json.windows(NAN.len()).any(|window| window == NAN) {
        return None;
    }
    let mut text = Vec::with_capacity(json.len() + json.len() / 4);
    let (mut rest, mut quoted) = (json, false);
    while let Some((byte, tail)) = rest.split_first() {
        if !quoted && let Some(tail) = rest.strip_prefix(NAN) {
            text.extend_from_slice(b"null");
            rest = tail;
            continue;
        }
        text.push(*byte);
        rest = tail;
        match byte {
            b'"' => quoted = !quoted,
            // An escaped character does not end the string.
            b'\\' if quoted => {
                if let Some((escaped, tail)) = rest.split_first() {
                    text.push(*escaped);
                    rest = tail;
                }
            }
            _ => {}
        }
    }
    Some(text)
}

/// The items of a list; an error contains the index of its item.
pub(crate) fn parse_list<'a, T: Deserialize<'a>>(
    raw: Option<&'a RawValue>,
    path: &str,
) -> Result<Option<Vec<T>>, PredictError> {
    let Some(raw) = raw else { return Ok(None) };
    let items: Vec<&RawValue> = parse_part(raw, path)?;
    let each = items.into_iter().enumerate();
    each.map(|(i, raw)| parse_part(raw, &format!("{path}[{i}]")))
        .collect::<Result<_, _>>()
        .map(Some)
}

/// serde_json's text without the position, which is relative to a part of the request and would be
/// misleading.
pub(crate) fn without_position(e: &serde_json::Error) -> String {
    let text = e.to_string();
    match text.rfind(" at line ") {
        Some(at) => text[..at].to_owned(),
        None => text,
    }
}

pub(crate) fn parse_part<'a, T: Deserialize<'a>>(
    raw: &'a RawValue,
    path: &str,
) -> Result<T, PredictError> {
    serde_json::from_str(raw.get())
        .map_err(|e| PredictError::invalid(format!("{path}: {}", without_position(&e))))
}
