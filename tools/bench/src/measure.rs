//! One measurement of one running server.

use anyhow::ensure;

use crate::BenchOptions;
use crate::load::{self, BenchRequest};
use crate::process::{self, ServerProcess};
use crate::report::ResultCell;

/// Measures a closed loop, and an open loop at half the rate that the closed one reached, at most
/// `most` requests per second: the latency that users see of a server that is not overloaded. The
/// caller fills in the name of the server.
pub(crate) fn measure_server(
    options: &BenchOptions,
    server: &ServerProcess,
    call: &BenchRequest,
    most: f64,
) -> anyhow::Result<ResultCell> {
    load::run_closed_loop(call, options, options.seconds / 5.0)?;
    let cpu = server.cpu_seconds();
    let measured = load::run_closed_loop(call, options, options.seconds)?;
    let cpu = server.cpu_seconds() - cpu;
    ensure!(measured.errors == 0, "{} errors", measured.errors);
    let per_second = measured.requests as f64 / measured.seconds;
    let open =
        load::run_open_loop(call, options, options.seconds / 2.0, most.min(per_second / 2.0))?;
    Ok(ResultCell {
        server: String::new(),
        model: String::new(),
        wire: String::new(),
        cpu_us: cpu * 1e6 / measured.requests as f64,
        per_second,
        p50_us: measured.percentile(0.5),
        p99_us: measured.percentile(0.99),
        open_p50_us: open.percentile(0.5),
        open_p99_us: open.percentile(0.99),
        pss_bytes: server.pss_bytes(),
        ready_ms: f64::NAN,
        load_average: process::load_average(),
    })
}
