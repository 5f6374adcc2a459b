//! Metrics on the wire: text, or protobuf for a Prometheus that accepts it, because native
//! histograms need it.

use http::HeaderMap;
use http::header::ACCEPT;
use prometheus_client::encoding::{prometheus_protobuf, text};
use prometheus_client::metrics::histogram::{Histogram, NativeHistogramConfig};
use prometheus_client::registry::Registry;

/// Content type of metrics as text.
pub const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const PROTOBUF: &str =
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited";

/// Maximum number of sparse buckets of one histogram; beyond it the resolution is halved.
const MAX_BUCKETS: usize = 160;

/// A histogram with the classic `buckets` and, for scrapers that accept them, native ones that grow
/// by at most 10 %.
pub fn new_histogram(buckets: impl IntoIterator<Item = f64>) -> Histogram {
    Histogram::new_classic_and_native(
        buckets,
        NativeHistogramConfig::new(1.1).max_buckets(MAX_BUCKETS),
    )
}

/// Content type and body of an answer to a scrape with these headers.
///
/// # Errors
/// When a collector fails; those of Slipway do not.
pub fn encode_metrics(
    registry: &Registry,
    headers: &HeaderMap,
) -> Result<(&'static str, Vec<u8>), std::fmt::Error> {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if prefers_protobuf(accept) {
        return Ok((
            PROTOBUF,
            prometheus_protobuf::encode_to_vec(registry).map_err(|_| std::fmt::Error)?,
        ));
    }
    let mut body = String::new();
    text::encode(&mut body, registry)?;
    Ok((OPENMETRICS, body.into_bytes()))
}

/// Whether protobuf is accepted, and at least as much as text.
fn prefers_protobuf(accept: &str) -> bool {
    let (mut protobuf, mut other) = (0.0_f64, 0.0_f64);
    for range in accept.split(',') {
        let mut parts = range.split(';').map(|p| p.trim().to_ascii_lowercase());
        let kind = parts.next().unwrap_or_default();
        let parts: Vec<_> = parts.collect();
        let has = |part: &str| parts.iter().any(|p| p == part);
        let quality = parts.iter().find_map(|p| p.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
        let ours = kind == "application/vnd.google.protobuf"
            && has("proto=io.prometheus.client.metricfamily")
            && has("encoding=delimited");
        if ours {
            protobuf = protobuf.max(quality);
        } else if kind == "application/openmetrics-text" || kind == "text/plain" {
            other = other.max(quality);
        }
    }
    protobuf > 0.0 && protobuf >= other
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Headers that Prometheus 2 and 3 send without and with native histograms.
    const CLASSIC: &str = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,\
        text/plain;version=1.0.0;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1";
    const NATIVE: &str = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,\
        application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2";

    #[test]
    fn protobuf_is_sent_when_it_is_preferred() {
        assert!(prefers_protobuf(NATIVE));
        for other in [CLASSIC, "", "*/*", "application/vnd.google.protobuf", "text/plain"] {
            assert!(!prefers_protobuf(other), "{other}");
        }
        assert!(!prefers_protobuf(&NATIVE.replace("q=0.6", "q=0.1")));
    }

    #[test]
    fn a_histogram_has_both_kinds_of_buckets() {
        let mut registry = Registry::default();
        let histogram = new_histogram([0.1, 1.0]);
        registry.register("seconds", "Time", histogram.clone());
        histogram.observe(0.05);
        histogram.observe(0.5);
        let headers = |accept: &'static str| {
            HeaderMap::from_iter([(ACCEPT, http::HeaderValue::from_static(accept))])
        };
        let (kind, body) = encode_metrics(&registry, &headers(CLASSIC)).unwrap();
        let text = String::from_utf8(body).unwrap();
        assert!(
            kind.starts_with("application/openmetrics-text")
                && text.contains("seconds_bucket{le=\"0.1\"} 1"),
            "{text}"
        );
        let (kind, body) = encode_metrics(&registry, &headers(NATIVE)).unwrap();
        assert!(kind.starts_with("application/vnd.google.protobuf") && !body.is_empty());
        let families = prometheus_protobuf::encode(&registry).unwrap();
        let metric = families[0].metric[0].histogram.as_ref().unwrap();
        assert_eq!((metric.sample_count, metric.bucket.len()), (2, 3));
        assert!(metric.schema >= 3 && metric.positive_span.len() == 2, "{metric:?}");
    }
}
