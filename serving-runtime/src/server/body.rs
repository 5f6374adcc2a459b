//! Reads request bodies within their limits.

use std::io::Read as _;

use bytes::Bytes;
use flate2::read::{MultiGzDecoder, ZlibDecoder};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;

use super::error::ApiError;

fn too_large(limit: usize) -> ApiError {
    ApiError::TooLarge(format!(
        "the body is larger than {limit} bytes; send fewer rows, or start the server with a larger --max-body-bytes"
    ))
}

/// The body, as sent.
pub(super) async fn collect_body(
    headers: &HeaderMap,
    body: Incoming,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let declared = headers
        .get(CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<u64>().ok());
    if declared.is_some_and(|n| n > limit as u64) {
        return Err(too_large(limit));
    }
    match Limited::new(body, limit).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(e) if e.is::<LengthLimitError>() => Err(too_large(limit)),
        Err(e) => Err(ApiError::bad_request(format!("the body broke off: {e}"))),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentEncoding {
    Identity,
    Gzip,
    Deflate,
}

/// Parses `Content-Encoding`.
pub(super) fn content_encoding(headers: &HeaderMap) -> Result<ContentEncoding, ApiError> {
    let Some(value) = headers.get(CONTENT_ENCODING) else { return Ok(ContentEncoding::Identity) };
    match value.to_str().unwrap_or_default().trim() {
        "" | "identity" => Ok(ContentEncoding::Identity),
        "gzip" | "x-gzip" => Ok(ContentEncoding::Gzip),
        "deflate" => Ok(ContentEncoding::Deflate),
        other => Err(ApiError::UnsupportedEncoding(format!(
            "content encoding {other:?}; send gzip, deflate or identity"
        ))),
    }
}

/// Decompresses a body; the decompressed size is limited too.
pub(super) fn decode_body(
    body: Bytes,
    encoding: ContentEncoding,
    limit: usize,
) -> Result<Bytes, ApiError> {
    let mut out = Vec::new();
    let bound = (limit as u64).saturating_add(1);
    let read = match encoding {
        ContentEncoding::Identity => return Ok(body),
        ContentEncoding::Gzip => {
            MultiGzDecoder::new(body.as_ref()).take(bound).read_to_end(&mut out)
        }
        ContentEncoding::Deflate => {
            ZlibDecoder::new(body.as_ref()).take(bound).read_to_end(&mut out)
        }
    };
    read.map_err(|e| {
        ApiError::bad_request(format!("the body is not valid {encoding:?} data: {e}"))
    })?;
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
        assert!(matches!(
            decode_body(bomb.clone(), ContentEncoding::Gzip, 1 << 16),
            Err(ApiError::TooLarge(_))
        ));
        assert_eq!(decode_body(bomb, ContentEncoding::Gzip, 1 << 20).unwrap().len(), 1 << 20);
        assert!(matches!(
            decode_body(Bytes::from_static(b"no"), ContentEncoding::Gzip, 10),
            Err(ApiError::BadRequest(_))
        ));
        assert!(matches!(
            decode_body(Bytes::from_static(b"no"), ContentEncoding::Deflate, 10),
            Err(ApiError::BadRequest(_))
        ));
    }
}
