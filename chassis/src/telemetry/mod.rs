//! Logs and traces.
//!
//! Logs are lines of JSON or text. Traces go by OTLP over HTTP to the collector in
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`). Without one [`enabled`]
//! is false, [`span!`] makes nothing, and [`run_in_span`] is the future itself: tracing then costs
//! a request the read of one flag. Sampling is that of the SDK:
//! `OTEL_TRACES_SAMPLER=parentbased_traceidratio` with `OTEL_TRACES_SAMPLER_ARG=0.01`.
//!
//! For work that belongs to a request, on any task:
//!
//! ```
//! # async fn get() -> u8 { 7 }
//! # async fn example() {
//! let span = || slipway_chassis::span!("redis get", keys = 1);
//! let value = slipway_chassis::telemetry::run_in_span(span, get()).await;
//! # }
//! ```
//!
//! Across a queue, [`current_traceparent`] returns the text to send along, and [`span_with_parent`]
//! continues the trace at the other end.

mod logs;
mod parent_trust;

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::SdkTracerProvider;
#[doc(hidden)]
pub use tracing;
use tracing::{Instrument as _, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use self::logs::LogLayer;
pub use self::logs::{LogFilter, LogFormat, LogOptions, LogOutput};
pub use self::parent_trust::ParentTrust;

/// Target of the spans that are exported; spans of libraries are not.
pub const TARGET: &str = "slipway::trace";

const TRACEPARENT: &str = "traceparent";

static ENABLED: AtomicBool = AtomicBool::new(false);

/// Whether spans are exported.
#[inline]
pub fn enabled() -> bool {
    ENABLED.load(Ordering::Relaxed)
}

/// A span when tracing is on, and none otherwise. Like `tracing::info_span!`: a name, then fields.
#[macro_export]
macro_rules! span {
    ($name:literal $(, $($fields:tt)*)?) => {
        if $crate::telemetry::enabled() {
            $crate::telemetry::tracing::info_span!(
                target: $crate::telemetry::TARGET,
                $name $(, $($fields)*)?
            )
        } else {
            $crate::telemetry::tracing::Span::none()
        }
    };
}

/// Runs `work` within the span that `make` creates; `make` is not called when tracing is off.
pub async fn run_in_span<F: Future>(make: impl FnOnce() -> Span, work: F) -> F::Output {
    if enabled() { work.instrument(make()).await } else { work.await }
}

/// The same within another span, and no span outside of one: for calls that timers make as well,
/// each of which would begin a trace.
pub async fn run_in_child_span<F: Future>(make: impl FnOnce() -> Span, work: F) -> F::Output {
    if enabled() && !Span::current().is_none() { work.instrument(make()).await } else { work.await }
}

/// Flushes pending spans when it is dropped; keep it until the program ends.
#[derive(Debug, Default)]
pub struct TelemetryGuard(Option<SdkTracerProvider>);

impl Drop for TelemetryGuard {
    fn drop(&mut self) {
        if let Some(provider) = self.0.take() {
            ENABLED.store(false, Ordering::Relaxed);
            // The collector may be down already; the program ends all the same.
            let _ = provider.shutdown();
        }
    }
}

/// What a program logs and traces.
#[derive(Debug)]
pub struct TelemetryOptions {
    /// The name that traces carry unless `OTEL_SERVICE_NAME` is set.
    pub service: &'static str,
    /// The log.
    pub logs: LogOptions,
    /// Whether the sender of a request decides what is recorded.
    pub parents: ParentTrust,
}

/// Starts logs, and traces when an endpoint is set. Call it once, before any thread of an
/// asynchronous runtime: the exporter's client blocks.
pub fn init_telemetry(options: TelemetryOptions) -> TelemetryGuard {
    options.parents.apply();
    let (logs, problem) = options.logs.into_layer();
    let guard = init_subscriber(options.service, logs);
    if let Some(problem) = problem {
        problem.warn();
    }
    guard
}

fn init_subscriber(service: &'static str, logs: LogLayer) -> TelemetryGuard {
    let wanted = ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"];
    let wanted = wanted.iter().any(|name| std::env::var_os(name).is_some_and(|v| !v.is_empty()));
    if !wanted {
        tracing_subscriber::registry().with(logs).init();
        return TelemetryGuard::default();
    }
    match SpanExporter::builder().with_http().build() {
        Ok(exporter) => {
            let provider = tracer_provider(service, |b| b.with_batch_exporter(exporter));
            tracing_subscriber::registry().with(logs).with(trace_layer(&provider)).init();
            ENABLED.store(true, Ordering::Relaxed);
            TelemetryGuard(Some(provider))
        }
        Err(error) => {
            tracing_subscriber::registry().with(logs).init();
            // A wrong address of a collector is no reason not to start.
            tracing::error!(%error, "no traces: the exporter does not start; look at OTEL_EXPORTER_OTLP_ENDPOINT");
            TelemetryGuard::default()
        }
    }
}

/// Starts traces with the caller's own exporter, span by span, and no logs: for tests of a
/// program's traces. With `own_share` parents are not trusted, and this share of their traces is
/// recorded.
pub fn init_with_exporter(
    service: &'static str,
    exporter: impl opentelemetry_sdk::trace::SpanExporter + 'static,
    own_share: Option<f64>,
) -> TelemetryGuard {
    own_share.into_iter().for_each(parent_trust::distrust_parents);
    let provider = tracer_provider(service, |b| b.with_simple_exporter(exporter));
    tracing_subscriber::registry().with(trace_layer(&provider)).init();
    ENABLED.store(true, Ordering::Relaxed);
    TelemetryGuard(Some(provider))
}

fn tracer_provider(
    service: &'static str,
    exporter: impl FnOnce(
        opentelemetry_sdk::trace::TracerProviderBuilder,
    ) -> opentelemetry_sdk::trace::TracerProviderBuilder,
) -> SdkTracerProvider {
    let resource = Resource::builder();
    // The SDK has read OTEL_SERVICE_NAME already.
    let named = std::env::var_os("OTEL_SERVICE_NAME").is_some_and(|name| !name.is_empty());
    let resource = if named { resource } else { resource.with_service_name(service) };
    exporter(SdkTracerProvider::builder().with_resource(resource.build())).build()
}

fn trace_layer<S>(provider: &SdkTracerProvider) -> impl tracing_subscriber::Layer<S>
where
    S: tracing::Subscriber + for<'a> tracing_subscriber::registry::LookupSpan<'a>,
{
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("slipway"));
    layer
        .with_location(false)
        .with_threads(false)
        .with_filter(filter_fn(|meta| meta.target() == TARGET))
}

struct HeaderExtractor<'a>(&'a HeaderMap);

impl Extractor for HeaderExtractor<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeaderInjector<'a>(&'a mut HeaderMap);

impl Injector for HeaderInjector<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

/// The span of a received request, as a child of the span in its `traceparent`. No span when
/// tracing is off.
pub fn server_span(method: &http::Method, path: &str, headers: &HeaderMap) -> Span {
    let span = span!(
        "request",
        otel.name = tracing::field::Empty,
        otel.kind = "server",
        otel.status_code = tracing::field::Empty,
        http.request.method = method.as_str(),
        url.path = path,
        http.response.status_code = tracing::field::Empty,
        trace_id = tracing::field::Empty,
    );
    if enabled() {
        span.record("otel.name", format!("{method} {path}").as_str());
        set_remote_parent(&span, &HeaderExtractor(headers), parent_trust::resample_parent);
    }
    span
}

fn set_remote_parent(
    span: &Span,
    carrier: &dyn Extractor,
    decided: fn(SpanContext) -> SpanContext,
) {
    let parent = TraceContextPropagator::new().extract(carrier).span().span_context().clone();
    if parent.is_valid() {
        let _ = span.set_parent(Context::new().with_remote_span_context(decided(parent)));
    }
    // Written into the log, so that its lines can be matched with their trace.
    let context = span.context();
    let trace = context.span().span_context().trace_id();
    span.record("trace_id", tracing::field::display(trace));
}

/// Records the status of an answer in a server's span.
pub fn record_status(span: &Span, status: http::StatusCode) {
    span.record("http.response.status_code", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

/// Makes the current span the parent of what the receiver of these headers traces. Without traces
/// a client's own `traceparent` stays as it is.
pub fn inject_traceparent(headers: &mut HeaderMap) {
    if enabled() {
        TraceContextPropagator::new()
            .inject_context(&Span::current().context(), &mut HeaderInjector(headers));
    }
}

/// The W3C `traceparent` of the current span, to be sent along with a message. `None` when tracing
/// is off.
pub fn current_traceparent() -> Option<String> {
    let mut headers = HeaderMap::new();
    inject_traceparent(&mut headers);
    Some(headers.get(TRACEPARENT)?.to_str().ok()?.to_owned())
}

/// Makes `span` a child of the span in a message's `traceparent`, if there is one.
pub fn span_with_parent(span: Span, traceparent: Option<&str>) -> Span {
    if enabled()
        && let Some(value) = traceparent.and_then(|t| HeaderValue::from_str(t).ok())
    {
        let headers = HeaderMap::from_iter([(HeaderName::from_static(TRACEPARENT), value)]);
        // The writer of the message has decided: one of our programs, or another one that may write
        // to our queue.
        set_remote_parent(&span, &HeaderExtractor(&headers), |parent| parent);
    }
    span
}

#[cfg(test)]
mod tests {
    use opentelemetry_sdk::trace::InMemorySpanExporter;

    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    /// A single test, because tracing is switched on per process.
    #[test]
    fn nothing_when_off_and_a_whole_trace_when_on() {
        let headers = HeaderMap::from_iter([(
            HeaderName::from_static(TRACEPARENT),
            HeaderValue::from_static(PARENT),
        )]);
        let span = server_span(&http::Method::POST, "/v2", &headers);
        assert!(span.is_none() && current_traceparent().is_none());
        let mut passed = headers.clone();
        inject_traceparent(&mut passed);
        assert_eq!(passed, headers, "a client's own header is not touched");

        let exporter = InMemorySpanExporter::default();
        let provider = tracer_provider("test", |b| b.with_simple_exporter(exporter.clone()));
        let _default = tracing_subscriber::registry().with(trace_layer(&provider)).set_default();
        ENABLED.store(true, Ordering::Relaxed);
        tracing::info_span!("of a library").in_scope(|| ());
        let span = server_span(&http::Method::POST, "/v2", &headers);
        let mut inner = HeaderMap::new();
        span.in_scope(|| {
            span!("arm", revision = "abc").in_scope(|| inject_traceparent(&mut inner))
        });
        record_status(&span, http::StatusCode::BAD_GATEWAY);
        let queued = span_with_parent(span!("job"), inner[TRACEPARENT].to_str().ok());
        drop((span, queued));
        ENABLED.store(false, Ordering::Relaxed);

        let spans = exporter.get_finished_spans().unwrap();
        let names: Vec<_> = spans.iter().map(|s| s.name.as_ref()).collect();
        assert_eq!(names, ["arm", "POST /v2", "job"]);
        let trace = spans[0].span_context.trace_id();
        assert!(spans.iter().all(|s| s.span_context.trace_id() == trace));
        assert_eq!(trace.to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(spans[1].parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(spans[2].parent_span_id, spans[0].span_context.span_id());
        assert_eq!(spans[0].parent_span_id, spans[1].span_context.span_id());
    }
}
