//! Tracing spans of calls that several crates make.

use slipway_chassis::telemetry;

/// Shows what Redis is asked within a request or a job, by the names of OpenTelemetry's conventions
/// for databases.
pub async fn trace_redis_call<F: Future>(operation: &'static str, work: F) -> F::Output {
    let span = || {
        let system = "redis";
        slipway_chassis::span!(
            "redis",
            otel.kind = "client",
            db.system.name = system,
            db.operation.name = operation
        )
    };
    telemetry::run_in_child_span(span, work).await
}
