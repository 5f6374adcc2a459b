//! Command-line options of baselines and samples.

use clap::Args;
use slipway_contracts::environment;

/// Options of the baseline and of samples.
#[derive(Debug, Clone, Args)]
pub struct ObserveArgs {
    /// Address of the model's baseline.json (made by `kubectl slipway baseline`); same schemes as
    /// the model. Empty: no drift metrics.
    #[arg(long, env = environment::BASELINE_URI, default_value = "", hide_default_value = true)]
    pub baseline: String,
    /// `sha256:<hex>` of the baseline file; empty when not pinned.
    #[arg(long, env = environment::BASELINE_DIGEST, default_value = "", hide_default_value = true)]
    pub baseline_digest: String,
    /// Largest number of features whose bins are exported: each has about 13 series per pod.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u16).range(0..=256))]
    pub baseline_max_features: u16,
    /// Names of the features to export. Default: the first ones of the baseline.
    #[arg(long, value_delimiter = ',')]
    pub baseline_features: Vec<String>,

    /// Share of the requests whose inputs and outputs are written to `--sample-sink`, 0 to 1.
    #[arg(long, env = environment::SAMPLE_PAYLOADS, default_value_t = 0.0, value_parser = parse_share)]
    pub sample_payloads: f64,
    /// Where samples go, as JSON lines: file:///directory, or s3://, gs:// or az:// with bucket and prefix.
    #[arg(long, env = environment::SAMPLE_SINK, default_value = "", hide_default_value = true)]
    pub sample_sink: String,
    /// Inputs whose values are left out of samples.
    #[arg(long, env = environment::SAMPLE_REDACT, value_delimiter = ',')]
    pub sample_redact: Vec<String>,
    /// Bytes of samples that may wait for the sink; further ones are dropped and counted.
    #[arg(long, default_value_t = 16 << 20)]
    pub sample_buffer_bytes: usize,
    /// Size in bytes at which a file of samples is closed and the next one begins.
    #[arg(long, default_value_t = 8 << 20, value_parser = clap::value_parser!(u64).range(1..))]
    pub sample_file_bytes: u64,
    /// Age in seconds at which a file of samples is closed and the next one begins.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub sample_file_seconds: u64,
    /// Number of files that a `file://` sink keeps; the oldest of this pod's own files are removed.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    pub sample_files: u32,
}

fn parse_share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|x| (0.0..=1.0).contains(x));
    share.ok_or_else(|| "want a number from 0 to 1".into())
}
