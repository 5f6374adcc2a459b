//! Which log lines are written, in which form, and where to.

use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

/// Which log lines are written: a filter as `tracing-subscriber` reads it, or `info`.
#[derive(Debug)]
pub struct LogFilter {
    filter: EnvFilter,
    problem: Option<FilterProblem>,
}

#[derive(Debug)]
pub(super) struct FilterProblem {
    source: &'static str,
    error: String,
}

impl LogFilter {
    /// The filter in the variable `RUST_LOG`.
    pub fn from_environment() -> Self {
        match EnvFilter::try_from_default_env() {
            Err(_) if std::env::var_os("RUST_LOG").is_none() => Self::default_filter(None),
            read => Self::from_result(read, "RUST_LOG"),
        }
    }

    /// The filter in a text; `source` names where the user wrote it.
    pub fn parse(text: &str, source: &'static str) -> Self {
        Self::from_result(EnvFilter::try_new(text), source)
    }

    fn from_result<E: ToString>(read: Result<EnvFilter, E>, source: &'static str) -> Self {
        match read {
            Ok(filter) => Self { filter, problem: None },
            Err(error) => {
                Self::default_filter(Some(FilterProblem { source, error: error.to_string() }))
            }
        }
    }

    fn default_filter(problem: Option<FilterProblem>) -> Self {
        Self { filter: EnvFilter::new("info"), problem }
    }
}

impl FilterProblem {
    /// Needs a log to be written to.
    pub(super) fn warn(self) {
        let Self { source, error } = self;
        tracing::warn!(error, "{source} is no filter; the log is that of `info`");
    }
}

/// The form of a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text,
}

/// Where a log is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// What a program logs.
#[derive(Debug)]
pub struct LogOptions {
    /// Which lines.
    pub filter: LogFilter,
    /// In which form.
    pub format: LogFormat,
    /// Where to.
    pub output: LogOutput,
}

pub(super) type LogLayer = Box<dyn Layer<Registry> + Send + Sync>;

impl LogOptions {
    /// The layer that writes the log, and what was wrong with its filter.
    pub(super) fn into_layer(self) -> (LogLayer, Option<FilterProblem>) {
        let LogFilter { filter, problem } = self.filter;
        let layer = fmt::layer().with_writer(match self.output {
            LogOutput::Stdout => BoxMakeWriter::new(std::io::stdout),
            LogOutput::Stderr => BoxMakeWriter::new(std::io::stderr),
        });
        let layer: LogLayer = match self.format {
            LogFormat::Json => layer.json().flatten_event(true).with_filter(filter).boxed(),
            LogFormat::Text => layer.with_filter(filter).boxed(),
        };
        (layer, problem)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_filter_leaves_info() {
        let read = LogFilter::parse("slipway=debug", "--log");
        assert_eq!(read.filter.to_string(), "slipway=debug");
        assert!(read.problem.is_none());
        let read = LogFilter::parse("slipway=loud", "--log");
        assert_eq!(read.filter.to_string(), "info");
        assert_eq!(read.problem.map(|problem| problem.source), Some("--log"));
    }
}
