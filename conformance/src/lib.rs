//! Checks any server of the Open Inference Protocol v2.
//!
//! The runner needs only the server's addresses and the name of a model. It reads the model's
//! metadata and builds requests of ones from it. Each check has a permanent name, a group, and a
//! sentence that states its requirement:
//! * **required**: the specification requires it;
//! * **extension**: an extension requires it; skipped if the server neither lists nor answers the
//!   extension;
//! * **recommended**: it helps clients where the specification leaves room or real servers fail.

mod checks;
mod model;
mod report;
mod rest;

use std::future::Future;
use std::time::{Duration, Instant};

pub use self::report::{CheckGroup, CheckOutcome, CheckResult, ConformanceReport};
use self::rest::RestClient;

/// The server and model to check.
#[derive(Debug, Clone)]
pub struct ConformanceOptions {
    /// Base address of REST.
    pub url: String,
    /// Base address of gRPC.
    pub grpc: Option<String>,
    /// Name of a loaded model.
    pub model: String,
    /// Time limit of each check.
    pub timeout: Duration,
}

/// Why a check does not pass.
#[derive(Debug)]
pub(crate) enum Stop {
    Fail(String),
    Skip(String),
}

pub(crate) type CheckVerdict = Result<(), Stop>;

impl From<anyhow::Error> for Stop {
    fn from(e: anyhow::Error) -> Self {
        Self::Fail(format!("{e:#}"))
    }
}

impl From<tonic::Status> for Stop {
    fn from(status: tonic::Status) -> Self {
        Self::Fail(format!("{:?}: {}", status.code(), status.message()))
    }
}

/// Fails the check unless the condition holds.
macro_rules! ensure {
    ($condition:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::Stop::Fail(format!($($text)+)));
        }
    };
}
pub(crate) use ensure;

pub(crate) fn skip_check<T>(why: impl Into<String>) -> Result<T, Stop> {
    Err(Stop::Skip(why.into()))
}

/// Runs checks one after the other and collects their results.
#[derive(Debug)]
pub(crate) struct CheckRunner {
    timeout: Duration,
    rows: Vec<CheckResult>,
}

impl CheckRunner {
    pub(crate) async fn check(
        &mut self,
        group: CheckGroup,
        name: &'static str,
        wants: &'static str,
        work: impl Future<Output = CheckVerdict>,
    ) {
        let begun = Instant::now();
        let verdict = tokio::time::timeout(self.timeout, work).await;
        let verdict = verdict.unwrap_or_else(|_| {
            Err(Stop::Fail(format!("no answer within {} s", self.timeout.as_secs())))
        });
        let (outcome, detail) = match verdict {
            Ok(()) => (CheckOutcome::Pass, String::new()),
            Err(Stop::Fail(why)) => (CheckOutcome::Fail, why),
            Err(Stop::Skip(why)) => (CheckOutcome::Skip, why),
        };
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.rows.push(CheckResult { name, group, wants, outcome, detail, millis });
    }
}

/// Runs all checks.
///
/// # Errors
/// When no HTTP client can be created; a server that does not answer fails its checks instead.
pub async fn run_checks(options: &ConformanceOptions) -> anyhow::Result<ConformanceReport> {
    let rest = RestClient::new(&options.url, &options.model, options.timeout)?;
    let mut runner = CheckRunner { timeout: options.timeout, rows: Vec::new() };
    let found = checks::check_rest_basics(&mut runner, &rest).await;
    if let Some(model) = &found.model {
        checks::check_inference(&mut runner, &rest, model).await;
        checks::check_errors(&mut runner, &rest, model).await;
        checks::check_extensions(&mut runner, &rest, model, &found).await;
        if let Some(url) = &options.grpc {
            checks::check_grpc(&mut runner, url, &rest, model).await;
        }
    }
    Ok(ConformanceReport {
        url: options.url.clone(),
        model: options.model.clone(),
        server: found.server,
        checks: runner.rows,
    })
}
