//! Reading request bodies within their bounds.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use crate::error::ApiError;

fn too_large(limit: usize) -> ApiError {
    ApiError::TooLarge(format!(
        "the body is larger than {limit} bytes; send fewer rows, or start the server with a larger --max-body-bytes"
    ))
}

/// The body, as sent.
pub(super) async fn collect(headers: &HeaderMap, body: Incoming, limit: usize) -> Result<Bytes, ApiError> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|v| v.parse::<u64>().ok());
    if declared.is_some_and(|n| n > limit as u64) {
        return Err(too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(e) => Err(ApiError::bad(format!("the body broke off: {e}"))),
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Identity,
    Gzip,
    Deflate,
}

/// Reads `Content-Encoding`.
pub(super) fn encoding(headers: &HeaderMap) -> Result<Encoding, ApiError> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(Encoding::Identity) };
    match value.to_str().unwrap_or_default().trim() {
        "" | "identity" => Ok(Encoding::Identity),
        "gzip" | "x-gzip" => Ok(Encoding::Gzip),
        "deflate" => Ok(Encoding::Deflate),
        other => {
            Err(ApiError::UnsupportedEncoding(format!("content encoding {other:?}; send gzip, deflate or identity")))
        }
    }
}

/// Unpacks a body; what it unpacks to is bounded too.
pub(super) fn decode(body: Bytes, encoding: Encoding, limit: usize) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    let bound = (limit as u64).saturating_add(1);
    let read = match encoding {
        Encoding::Identity => return Ok(body),
        Encoding::Gzip => MultiGzDecoder::new(body.as_ref()).take(bound).read_to_end(&mut out),
        Encoding::Deflate => ZlibDecoder::new(body.as_ref()).take(bound).read_to_end(&mut out),
    };
    read.map_err(|e| ApiError::bad(format!("the body is not valid {encoding:?} data: {e}")))?;
    if out.len() > limit { Err(too_large(limit)) } else { Ok(out.into()) }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn gzip(data: &[u8]) -> Bytes {
        let mut e = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        e.write_all(data).unwrap();
        e.finish().unwrap().into()
    }

    #[test]
    fn unpacking_is_bounded() {
        let bomb = gzip(&vec![0; 1 << 20]);
        assert!(bomb.len() < 4096);
        assert!(matches!(decode(bomb.clone(), Encoding::Gzip, 1 << 16), Err(ApiError::TooLarge(_))));
        assert_eq!(decode(bomb, Encoding::Gzip, 1 << 20).unwrap().len(), 1 << 20);
        assert!(matches!(decode(Bytes::from_static(b"no"), Encoding::Gzip, 10), Err(ApiError::BadRequest(_))));
        assert!(matches!(decode(Bytes::from_static(b"no"), Encoding::Deflate, 10), Err(ApiError::BadRequest(_))));
    }
}
