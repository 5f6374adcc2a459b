//! Measures jobs: how fast they are enqueued, and how fast one worker runs them, on each broker.
//!
//! All servers share one core, and the load generator has the other. First jobs are enqueued
//! without a running worker, then a worker is started and runs them all.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;

use crate::load::{self, BenchRequest};
use crate::model::{self, BenchModel};
use crate::process::{self, ServerProcess};
use crate::wire::WireEncoding;
use crate::{BenchOptions, peers, runtime};

const MODEL: &str = "tree30";
/// How long a broker may take to start, and a worker may take for all jobs.
const START_TIMEOUT: Duration = Duration::from_secs(30);
const WORK_TIMEOUT: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// A broker and its durability settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BrokerSetup {
    RedisEverySecond,
    RedisAlways,
    Nats,
}

impl BrokerSetup {
    const ALL: [Self; 3] = [Self::RedisEverySecond, Self::RedisAlways, Self::Nats];

    const fn name(self) -> &'static str {
        match self {
            Self::RedisEverySecond => "redis, appendfsync everysec",
            Self::RedisAlways => "redis, appendfsync always",
            Self::Nats => "nats, one replica",
        }
    }

    fn command(self, dir: &Path, port: u16) -> anyhow::Result<Command> {
        let port = port.to_string();
        let fsync = match self {
            Self::RedisEverySecond => "everysec",
            Self::RedisAlways => "always",
            Self::Nats => {
                let mut command = Command::new(ensure_nats_server()?);
                command
                    .args(["--addr", "127.0.0.1", "--port", &port, "--jetstream", "--store_dir"])
                    .arg(dir);
                return Ok(command);
            }
        };
        let mut command = Command::new("redis-server");
        command.args(["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "yes"]);
        command
            .args(["--appendfsync", fsync, "--maxmemory-policy", "noeviction", "--dir"])
            .arg(dir);
        Ok(command)
    }

    fn url(self, port: u16) -> String {
        format!("{}://127.0.0.1:{port}", if self == Self::Nats { "nats" } else { "redis" })
    }
}

/// The nats-server that the tests use, built if it does not exist.
fn ensure_nats_server() -> anyhow::Result<PathBuf> {
    let root = slipway_provision::workspace_root();
    Ok(slipway_provision::go_tools::ensure_program(
        &slipway_provision::BuildCache::from_env()?,
        &root,
        "nats-server",
    )?)
}

/// One round with one broker. Times are CPU microseconds per job.
#[derive(Debug, Clone, Copy)]
struct JobMeasurement {
    broker: BrokerSetup,
    queued_per_second: f64,
    queue_p50_us: f64,
    queue_p99_us: f64,
    queue_server_us: f64,
    queue_broker_us: f64,
    run_per_second: f64,
    run_worker_us: f64,
    run_broker_us: f64,
    load_average: f64,
}

/// Measures each broker and writes the results; does nothing when `--only` does not name `jobs`.
pub(crate) fn run_jobs_bench(options: &BenchOptions) -> anyhow::Result<()> {
    if !options.is_selected("jobs") {
        return Ok(());
    }
    options.make_dirs()?;
    let library = runtime::onnxruntime_library()?;
    let model =
        model::ensure_models(&options.dir, &[MODEL.to_owned()])?.pop().context("no model")?;
    let mut rows = Vec::new();
    for round in 0..options.rounds {
        for broker in BrokerSetup::ALL {
            eprintln!("round {} of {}: jobs on {}", round + 1, options.rounds, broker.name());
            match measure_broker(options, &library, &model, broker) {
                Ok(row) => rows.push(row),
                // A broker that does not run here is left out; the others are still measured.
                Err(error) => eprintln!("  left out: {error:#}"),
            }
        }
    }
    ensure!(!rows.is_empty(), "no broker could be measured");
    let path = options.report.join("jobs.md");
    std::fs::create_dir_all(&options.report)?;
    std::fs::write(&path, render_jobs_table(&rows))?;
    writeln!(std::io::stdout(), "{}", path.display())?;
    Ok(())
}

fn measure_broker(
    options: &BenchOptions,
    library: &Path,
    model: &BenchModel,
    broker: BrokerSetup,
) -> anyhow::Result<JobMeasurement> {
    let dir = std::path::absolute(options.dir.join("jobs"))?;
    // Removes files of an earlier round.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir)?;
    let log = |what: &str| options.dir.join("logs").join(format!("jobs-{what}.log"));
    let broker_port = runtime::free_ports()?;
    let mut keeper = ServerProcess::start(
        &mut broker.command(&dir, broker_port)?,
        options.server_core,
        &log("broker"),
    )?;
    keeper.wait_until(START_TIMEOUT, POLL_INTERVAL, || {
        Ok(TcpStream::connect(("127.0.0.1", broker_port)).is_ok())
    })?;

    let queue = |mut command: Command| {
        command.args(["--queue-url", &broker.url(broker_port), "--queue-max-jobs", "10000000"]);
        command.args(["--queue-max-bytes", "10000000000"]);
        command
    };
    let port = runtime::free_ports()?;
    let mut command = queue(peers::runtime_command("serve", library, model, port)?);
    command.arg(format!("--listen=127.0.0.1:{port}"));
    let mut server = ServerProcess::start(&mut command, options.server_core, &log("server"))?;
    let call = job_request(model, port);
    server.wait_until(START_TIMEOUT, POLL_INTERVAL, || Ok(load::is_answered(&call)))?;

    let warm = load::run_closed_loop(&call, options, options.seconds / 5.0)?;
    let cpu = [server.cpu_seconds(), keeper.cpu_seconds()];
    let queued = load::run_closed_loop(&call, options, options.seconds)?;
    let cpu = [server.cpu_seconds() - cpu[0], keeper.cpu_seconds() - cpu[1]];
    ensure!(
        warm.errors + queued.errors == 0,
        "{} jobs were not taken",
        warm.errors + queued.errors
    );
    let [queue_server_us, queue_broker_us] =
        cpu.map(|seconds| seconds * 1e6 / queued.requests as f64);
    drop(server);

    // Includes the request that checked whether the server is up.
    let all = 1 + warm.requests + queued.requests;
    let admin = runtime::free_ports()?;
    let before = keeper.cpu_seconds();
    let mut command = queue(peers::runtime_command("worker", library, model, admin - 1)?);
    let mut worker = ServerProcess::start(&mut command, options.server_core, &log("worker"))?;
    let mut first = None;
    worker.wait_until(WORK_TIMEOUT, POLL_INTERVAL, || {
        let done = succeeded_jobs(admin).unwrap_or(0);
        if done > 0 && first.is_none() {
            first = Some((done, Instant::now()));
        }
        ensure!(done <= all, "{done} jobs were run of {all}");
        Ok(done == all)
    })?;
    let (already, begun) = first.context("nothing was run")?;
    Ok(JobMeasurement {
        broker,
        queued_per_second: queued.requests as f64 / queued.seconds,
        queue_p50_us: queued.percentile(0.5),
        queue_p99_us: queued.percentile(0.99),
        queue_server_us,
        queue_broker_us,
        run_per_second: (all - already) as f64 / begun.elapsed().as_secs_f64(),
        run_worker_us: worker.cpu_seconds() * 1e6 / all as f64,
        run_broker_us: (keeper.cpu_seconds() - before) * 1e6 / all as f64,
        load_average: process::load_average(),
    })
}

fn job_request(model: &BenchModel, port: u16) -> BenchRequest {
    let mut call = model.row.build_request(port, "/v2/models/m/jobs", "m", WireEncoding::Json);
    call.body = Bytes::from([b"{\"data\":", call.body.as_ref(), b"}"].concat());
    call
}

/// Number of jobs that the worker has finished successfully.
fn succeeded_jobs(admin: u16) -> anyhow::Result<u64> {
    let answer = load::http_get(admin, "/metrics")?;
    let text = String::from_utf8_lossy(&answer.body);
    let line = text.lines().find(|line| {
        line.starts_with("slipway_runtime_jobs_total{") && line.contains("\"succeeded\"")
    });
    let value = line.and_then(|line| line.rsplit(' ').next()).context("no such counter")?;
    Ok(value.parse::<f64>()? as u64)
}

/// The median over the rounds for each number.
fn render_jobs_table(rows: &[JobMeasurement]) -> String {
    let mut text = String::from(
        "<!-- Written by `slipway-bench jobs`; do not edit. CPU in microseconds of a job. -->\n\n\
         | broker | queued/s | p50 us | p99 us | CPU of the server | of the broker | run/s, one worker | CPU of the worker | of the broker | rounds | load |\n\
         | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
    );
    for broker in BrokerSetup::ALL {
        let of: Vec<&JobMeasurement> = rows.iter().filter(|row| row.broker == broker).collect();
        let median = |number: fn(&JobMeasurement) -> f64| {
            let mut all: Vec<f64> = of.iter().map(|row| number(row)).collect();
            all.sort_by(f64::total_cmp);
            all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
        };
        if of.is_empty() {
            continue;
        }
        let numbers: [fn(&JobMeasurement) -> f64; 8] = [
            |row| row.queued_per_second,
            |row| row.queue_p50_us,
            |row| row.queue_p99_us,
            |row| row.queue_server_us,
            |row| row.queue_broker_us,
            |row| row.run_per_second,
            |row| row.run_worker_us,
            |row| row.run_broker_us,
        ];
        let numbers = numbers.map(|number| format!("{:.0}", median(number))).join(" | ");
        let _ = writeln!(
            text,
            "| {} | {numbers} | {} | {:.1} |",
            broker.name(),
            of.len(),
            median(|row| row.load_average)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_each_number_is_told() {
        let row = |broker, queued_per_second| JobMeasurement {
            broker,
            queued_per_second,
            queue_p50_us: 1.0,
            queue_p99_us: 2.0,
            queue_server_us: 3.0,
            queue_broker_us: 4.0,
            run_per_second: 5.0,
            run_worker_us: 6.0,
            run_broker_us: 7.0,
            load_average: 0.5,
        };
        let text = render_jobs_table(&[
            row(BrokerSetup::Nats, 30.0),
            row(BrokerSetup::Nats, 10.0),
            row(BrokerSetup::Nats, 20.0),
        ]);
        assert!(
            text.ends_with("| nats, one replica | 20 | 1 | 2 | 3 | 4 | 5 | 6 | 7 | 3 | 0.5 |\n"),
            "{text}"
        );
        assert!(!text.contains("redis"));
    }
}
