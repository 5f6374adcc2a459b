//! One measurement of one server that runs.

use anyhow::ensure;

use crate::Options;
use crate::load::{self, Call};
use crate::process::{self, Server};
use crate::report::Cell;

/// A closed loop, and an open one at half the rate that it reached, at most `most` requests a second: what users see of a server that is not
/// overloaded. Who was measured is left for the caller to say.
pub(crate) fn measure(options: &Options, server: &Server, call: &Call, most: f64) -> anyhow::Result<Cell> {
    load::closed(call, options, options.seconds / 5.0)?;
    let cpu = server.cpu();
    let measured = load::closed(call, options, options.seconds)?;
    let cpu = server.cpu() - cpu;
    ensure!(measured.errors == 0, "{} errors", measured.errors);
    let per_second = measured.requests as f64 / measured.seconds;
    let open = load::open(call, options, options.seconds / 2.0, most.min(per_second / 2.0))?;
    Ok(Cell {
        server: String::new(),
        model: String::new(),
        wire: String::new(),
        cpu_us: cpu * 1e6 / measured.requests as f64,
        per_second,
        p50_us: measured.percentile(0.5),
        p99_us: measured.percentile(0.99),
        open_p50_us: open.percentile(0.5),
        open_p99_us: open.percentile(0.99),
        pss_bytes: server.pss(),
        ready_ms: f64::NAN,
        load_average: process::load_average(),
    })
}
