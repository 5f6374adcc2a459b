//! Compresses answers for clients that accept it.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use http::{HeaderMap, HeaderValue};
use http_body_util::{BodyExt as _, Full};

use super::FullResponse;
use super::body::ContentEncoding;
use super::error::ApiError;

/// Shorter answers fit in one or two packets anyway, and many clients accept gzip by default
/// without a need for it.
const MIN_COMPRESS_BYTES: usize = 1 << 10;

/// Compresses the answer if it is long enough.
pub(super) async fn compress_response(
    answer: FullResponse,
    encoding: ContentEncoding,
) -> Result<FullResponse, ApiError> {
    let (mut head, body) = answer.into_parts();
    let whole = body.collect().await.map_or_else(|never| match never {}, |whole| whole.to_bytes());
    if whole.len() < MIN_COMPRESS_BYTES {
        return Ok(FullResponse::from_parts(head, Full::new(whole)));
    }
    let packed = tokio::task::spawn_blocking(move || compress_bytes(&whole, encoding)).await;
    let packed =
        packed.map_err(|e| ApiError::Internal(format!("compressing the answer failed: {e}")))?;
    let name = if encoding == ContentEncoding::Gzip { "gzip" } else { "deflate" };
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(name));
    head.headers.insert(VARY, HeaderValue::from_static("accept-encoding"));
    head.headers.remove(CONTENT_LENGTH);
    let packed =
        packed.map_err(|e| ApiError::Internal(format!("compressing the answer failed: {e}")))?;
    Ok(FullResponse::from_parts(head, Full::new(packed)))
}

/// The first supported encoding in `Accept-Encoding` that is not excluded by `q=0`.
pub(super) fn accepted_encoding(headers: &HeaderMap) -> Option<ContentEncoding> {
    let value = headers.get(ACCEPT_ENCODING)?.to_str().ok()?;
    value.split(',').find_map(|item| {
        let (name, weight) = item.split_once(';').unwrap_or((item, ""));
        let refused = weight
            .trim()
            .strip_prefix("q=")
            .is_some_and(|q| q.trim().parse::<f32>().is_ok_and(|q| q == 0.0));
        match name.trim() {
            "gzip" if !refused => Some(ContentEncoding::Gzip),
            "deflate" if !refused => Some(ContentEncoding::Deflate),
            _ => None,
        }
    })
}

fn compress_bytes(whole: &[u8], encoding: ContentEncoding) -> std::io::Result<Bytes> {
    let room = Vec::with_capacity(whole.len() / 4);
    Ok(match encoding {
        ContentEncoding::Identity => return Ok(Bytes::copy_from_slice(whole)),
        ContentEncoding::Gzip => {
            let mut encoder = GzEncoder::new(room, Compression::fast());
            encoder.write_all(whole)?;
            encoder.finish()?.into()
        }
        ContentEncoding::Deflate => {
            let mut encoder = ZlibEncoder::new(room, Compression::fast());
            encoder.write_all(whole)?;
            encoder.finish()?.into()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_accepted_encoding_is_taken() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, text.parse().unwrap());
            accepted_encoding(&headers)
        };
        assert_eq!(of("gzip, deflate"), Some(ContentEncoding::Gzip));
        assert_eq!(of("br, deflate;q=0.5"), Some(ContentEncoding::Deflate));
        assert_eq!(of("gzip;q=0, deflate"), Some(ContentEncoding::Deflate));
        assert_eq!(of("identity"), None);
        assert_eq!(accepted_encoding(&HeaderMap::new()), None);
    }
}
