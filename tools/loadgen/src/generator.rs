//! A run of the generator: its options, its tasks, its end.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use slipway_chassis::signals::ShutdownSignal;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;

use crate::account::RequestAccount;
use crate::api::{self, ApiContext};
use crate::client::LoadTarget;
use crate::summary::AccountSummary;
use crate::worker::{self, LoadPace, WorkerContext};
use crate::{callbacks, feedback, rows};

/// Sends held-out rows to a model at a fixed rate and keeps an account of every request.
///
/// Exits with 1 when a request failed, and with 2 when there was no run. The loop is open: requests
/// are due at fixed times independent of the answers, and latency counts from the time at which a
/// request was due, so that a slow server does not receive fewer requests. Nothing is ever retried.
#[derive(Debug, Clone, Parser)]
#[command(name = "slipway-loadgen", version, args_override_self = true)]
pub(crate) struct LoadgenOptions {
    /// Address of the model's server: http://host[:port].
    #[arg(long)]
    target: String,
    /// `Host` header, if it is not the host of the target (behind a port-forward).
    #[arg(long)]
    host: Option<String>,
    /// Name of the model in /v2/models/<name>.
    #[arg(long)]
    model: String,
    /// Name of the model's input tensor.
    #[arg(long, default_value = "X")]
    input: String,
    /// CSV of held-out rows: one header line, then label and features.
    #[arg(long)]
    rows: PathBuf,
    /// Requests per second; 0 waits for POST /rate.
    #[arg(long, default_value_t = 100.0)]
    rate: f64,
    /// Number of connections, which limits the requests in flight.
    #[arg(long, default_value_t = 16)]
    connections: usize,
    /// Requests that may wait for a connection; further due requests are counted as skipped.
    #[arg(long, default_value_t = 2000)]
    max_waiting: usize,
    /// Share of answered requests whose true label is sent back, 0 to 1.
    #[arg(long, default_value_t = 1.0)]
    feedback_share: f64,
    /// Address to which labels are sent: http://host[:port]; default: the target.
    #[arg(long)]
    feedback_target: Option<String>,
    /// File with the token that is sent with labels; read for each request, because it may change.
    #[arg(long)]
    token_file: Option<PathBuf>,
    /// Time limit of one request, in seconds after it is sent.
    #[arg(long, default_value_t = 30.0)]
    timeout: f64,
    /// Wait at most this many seconds until the target accepts a connection before the first
    /// request is due.
    #[arg(long, default_value_t = 0.0)]
    wait: f64,
    /// Address of the HTTP API.
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// Seconds after which no more requests are sent; the account stays readable.
    #[arg(long, default_value_t = 7200.0)]
    max_duration: f64,
    /// Number of single requests that are remembered for GET /account/requests, 40 bytes each.
    #[arg(long, default_value_t = 2_000_000)]
    max_records: usize,
    /// Send this many requests, print the account and exit: with 1 when a request failed. There is
    /// no HTTP API.
    #[arg(long, value_name = "N")]
    once: Option<u64>,
}

impl LoadgenOptions {
    fn validate(&self) -> Result<()> {
        ensure!((0.0..=100_000.0).contains(&self.rate), "--rate must be from 0 to 100000");
        ensure!(self.once.is_none() || self.rate > 0.0, "--once needs a --rate above 0");
        ensure!((1..=10_000).contains(&self.connections), "--connections must be from 1 to 10000");
        ensure!(
            (1..=1_000_000).contains(&self.max_waiting),
            "--max-waiting must be from 1 to 1000000"
        );
        ensure!((0.0..=1.0).contains(&self.feedback_share), "--feedback-share must be from 0 to 1");
        ensure!((0.001..=3600.0).contains(&self.timeout), "--timeout must be from 0.001 to 3600");
        ensure!((0.0..=3600.0).contains(&self.wait), "--wait must be from 0 to 3600");
        ensure!(
            (0.0..=604_800.0).contains(&self.max_duration),
            "--max-duration must be from 0 to 604800"
        );
        ensure!(
            self.once.is_none_or(|count| count <= 10_000_000),
            "--once must be at most 10000000"
        );
        ensure!(
            !self.model.is_empty() && !self.model.contains(['/', '?', '#', ' ']),
            "--model must be a path segment"
        );
        Ok(())
    }
}

/// A running generator.
pub(crate) struct LoadGenerator {
    context: Arc<ApiContext>,
    tasks: JoinSet<()>,
}

impl LoadGenerator {
    /// Starts dispatcher, workers and feedback.
    pub(crate) fn start(options: &LoadgenOptions, csv: &str) -> Result<Self> {
        options.validate()?;
        let timeout = Duration::from_secs_f64(options.timeout);
        let target = Arc::new(LoadTarget::new(&options.target, options.host.as_deref(), timeout)?);
        let feedback_url = options.feedback_target.as_deref().unwrap_or(&options.target);
        let labels = LoadTarget::new(feedback_url, options.host.as_deref(), timeout)?
            .with_token(options.token_file.clone());
        let account = Arc::new(RequestAccount::new(options.max_records.max(1)));
        let (pace, pace_seen) = watch::channel(LoadPace::Rate(options.rate));
        // All requests of a finite run may wait: none of them is skipped.
        let waiting = options.once.map_or(options.max_waiting, |count| count.max(1) as usize);
        let (slots, due) = mpsc::channel(waiting);
        let (feedback, sender) = feedback::feedback_channel(
            options.feedback_share,
            &options.model,
            &Arc::new(labels),
            &account,
        );
        let run = run_id();
        let work = Arc::new(WorkerContext {
            run: run.clone(),
            model: options.model.clone(),
            rows: rows::parse_rows(csv, &options.input)
                .with_context(|| format!("rows {}", options.rows.display()))?,
            target,
            account: Arc::clone(&account),
            slots: Mutex::new(due),
            pace: pace_seen.clone(),
            feedback,
        });
        let mut tasks = JoinSet::new();
        let (patience, awaited) = (Duration::from_secs_f64(options.wait), Arc::clone(&work.target));
        let dispatch =
            worker::dispatch_requests(pace_seen, slots, Arc::clone(&account), options.once);
        tasks.spawn(async move {
            awaited.wait_reachable(patience).await;
            dispatch.await;
        });
        tasks.spawn(sender.run());
        for _ in 0..options.connections {
            tasks.spawn(Arc::clone(&work).run_worker());
        }
        let (target, model) = (options.target.clone(), options.model.clone());
        Ok(Self {
            context: Arc::new(ApiContext { run, target, model, account, pace: Arc::new(pace) }),
            tasks,
        })
    }

    /// Waits until every request and all feedback have ended: after a finite run, or after a stop.
    pub(crate) async fn finish(&mut self) -> Result<AccountSummary> {
        while let Some(ended) = self.tasks.join_next().await {
            ended.context("a task of the generator failed")?;
        }
        Ok(AccountSummary::from_account(&self.context.account))
    }

    /// Sends no more requests.
    pub(crate) fn stop(&self) {
        self.context.pace.send_replace(LoadPace::Stopped);
    }
}

/// Runs the program; returns true when no request failed.
pub(crate) async fn run_loadgen(options: LoadgenOptions) -> Result<bool> {
    let path = &options.rows;
    let csv = std::fs::read_to_string(path).with_context(|| format!("rows {}", path.display()))?;
    let mut signals = ShutdownSignal::new().context("cannot listen for signals")?;
    let mut generator = LoadGenerator::start(&options, &csv)?;
    let summary = if options.once.is_some() {
        tokio::select! {
            summary = generator.finish() => summary?,
            () = signals.recv() => {
                anyhow::bail!("interrupted\n{}", AccountSummary::from_account(&generator.context.account).to_table().trim_end());
            }
        }
    } else {
        serve_api(&options, &generator, &mut signals).await?;
        generator.stop();
        generator.finish().await?
    };
    std::io::stdout()
        .write_all(summary.to_table().as_bytes())
        .context("cannot write to standard output")?;
    Ok(summary.failed == 0)
}

/// Serves the API until a signal comes; the load itself ends by `--max-duration`.
async fn serve_api(
    options: &LoadgenOptions,
    generator: &LoadGenerator,
    signals: &mut ShutdownSignal,
) -> Result<()> {
    let listener = slipway_listener::bind_address(options.listen)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let pace = Arc::clone(&generator.context.pace);
    let limit = Duration::from_secs_f64(options.max_duration);
    // The process keeps running: a Deployment would restart it, and the load with it.
    let timer = tokio::spawn(async move {
        tokio::time::sleep(limit).await;
        pace.send_replace(LoadPace::Stopped);
    });
    let router = api::api_router(Arc::clone(&generator.context))
        .merge(callbacks::callback_router(Arc::default()));
    let server = axum::serve(listener, router);
    tokio::select! {
        ended = server.into_future() => ended.context("HTTP API")?,
        () = signals.recv() => {}
    }
    timer.abort();
    Ok(())
}

/// Ids are unique over runs and pods: start time and process.
fn run_id() -> String {
    let nanos =
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
    format!("{:x}{:x}", nanos, std::process::id())
}

#[cfg(test)]
mod tests;
