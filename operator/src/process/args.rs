//! Command line arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use slipway_chassis::telemetry;
use slipway_contracts::ports;
use slipway_crds::v1alpha1::PodTemplatePatch;
use slipway_evidence::{PromQlGates, PrometheusArgs};
use slipway_objects::gateway_settings::GatewaySettings;
use slipway_objects::settings::{GatewayAutoscaler, PlanSettings, TracingSettings};

use crate::namespaces::settings;
use crate::process::error::OperatorError;
use crate::process::network_policies::NetworkPolicyArgs;

/// Ships machine-learning models by canary and blue-green.
#[derive(Debug, Parser)]
#[command(name = "slipway-operator", version, args_conflicts_with_subcommands = true)]
pub struct OperatorCli {
    /// Command to execute; `run` when omitted.
    #[command(subcommand)]
    pub command: Option<OperatorCommand>,
    /// Arguments of `run`.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Command to execute.
#[derive(Debug, Subcommand)]
pub enum OperatorCommand {
    /// Run the operator.
    Run(Box<RunArgs>),
    /// Print the CustomResourceDefinitions as YAML.
    Crd,
}

/// Arguments of `run`.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Namespace to manage; all namespaces when omitted.
    #[arg(long, env = "SLIPWAY_NAMESPACE")]
    pub namespace: Option<String>,

    /// Connection to Prometheus.
    #[command(flatten)]
    pub prometheus: PrometheusArgs,

    /// Image of the gateway.
    #[arg(long, env = "SLIPWAY_GATEWAY_IMAGE", default_value = concat!("slipway-gateway:", env!("CARGO_PKG_VERSION")))]
    pub gateway_image: String,

    /// Image of the model server for ModelDeployments that set none.
    #[arg(long, env = "SLIPWAY_RUNTIME_IMAGE", default_value = concat!("slipway-runtime:", env!("CARGO_PKG_VERSION")))]
    pub runtime_image: String,

    /// Image of the Redis sidecar of the model server for ModelDeployments that set none.
    #[arg(long, env = "SLIPWAY_REDIS_IMAGE", default_value = concat!("slipway-redis:", env!("CARGO_PKG_VERSION")))]
    pub redis_image: String,

    /// File with gateway settings (YAML): replicas, autoscaling, and a pod template that is merged
    /// into that of the gateway pods; their container is named `gateway`.
    #[arg(long, env = "SLIPWAY_GATEWAY_SETTINGS_FILE", value_name = "PATH")]
    pub gateway_settings_file: Option<PathBuf>,

    /// Whether the pods of gateways, model servers and workers set their user and group.
    #[arg(long, env = "SLIPWAY_USER_IDS", value_enum, default_value_t = UserIds::Fixed)]
    pub user_ids: UserIds,

    /// How gateways are updated to another version or to other settings of the operator.
    #[arg(long, env = "SLIPWAY_GATEWAY_UPDATE", value_enum, default_value_t = GatewayUpdateMode::Gradual)]
    pub gateway_update: GatewayUpdateMode,

    /// Pull policy of the images of gateway and model server.
    #[arg(long, env = "SLIPWAY_IMAGE_PULL_POLICY", value_enum, default_value_t = PullPolicy::IfNotPresent)]
    pub image_pull_policy: PullPolicy,

    /// Secret with credentials for these images, in the namespace of each ModelDeployment; can be
    /// repeated.
    #[arg(
        long = "image-pull-secret",
        env = "SLIPWAY_IMAGE_PULL_SECRETS",
        value_name = "NAME",
        value_delimiter = ','
    )]
    pub image_pull_secrets: Vec<String>,

    /// Where gateways and model servers send traces: base URL of an OTLP collector, for example
    /// http://otel-collector.monitoring:4318. Off when omitted.
    #[arg(long, env = "SLIPWAY_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,

    /// Number of traced requests per million; the same share applies to requests with a
    /// traceparent of the client.
    #[arg(long, env = "SLIPWAY_TRACE_PER_MILLION", default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub trace_per_million: u32,

    /// NetworkPolicies.
    #[command(flatten)]
    pub policies: NetworkPolicyArgs,

    /// Whether only the holder of a lease acts; required with more than one replica.
    #[arg(long, env = "SLIPWAY_LEADER_ELECT", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub leader_elect: bool,

    /// Namespace of the lease. Default: the namespace of the pod, else `default`.
    #[arg(long, env = "SLIPWAY_LEASE_NAMESPACE")]
    pub lease_namespace: Option<String>,

    /// Name of the lease.
    #[arg(long, env = "SLIPWAY_LEASE_NAME", default_value = "slipway-operator")]
    pub lease_name: String,

    /// Secret with the operator's key, in the namespace of the lease; an empty Secret is filled.
    /// Gateways then report their state only to the operator; when omitted, to every client.
    #[arg(long, env = "SLIPWAY_KEY_SECRET", value_name = "NAME")]
    pub key_secret: Option<String>,

    /// Address of /livez, /readyz and /metrics.
    #[arg(long, env = "SLIPWAY_ADMIN_LISTEN", default_value_t = ports::METRICS.at_every_address())]
    pub admin_listen: SocketAddr,

    /// Port of the gateways' admin server.
    #[arg(long, env = "SLIPWAY_GATEWAY_ADMIN_PORT", default_value_t = ports::GATEWAY_ADMIN.number, hide = true)]
    pub gateway_admin_port: u16,

    /// Log format.
    #[arg(long, env = "SLIPWAY_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
    pub log_format: LogFormat,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// At every start of a pod.
    Always,
    /// When the node does not have it.
    IfNotPresent,
    /// Never; the node must have it.
    Never,
}

/// Who assigns user and group of pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum UserIds {
    /// Slipway: 65532.
    Fixed,
    /// The platform, as in OpenShift, which rejects ids outside the range of the namespace.
    Platform,
}

/// How gateways are updated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum GatewayUpdateMode {
    /// Namespace by namespace; no further namespaces while updated gateways perform worse than
    /// before.
    Gradual,
    /// Not at all at present.
    Paused,
    /// All at once.
    Immediate,
}

impl From<GatewayUpdateMode> for slipway_core::gateway_rollout::UpdateMode {
    fn from(update: GatewayUpdateMode) -> Self {
        match update {
            GatewayUpdateMode::Gradual => Self::Gradual,
            GatewayUpdateMode::Paused => Self::Paused,
            GatewayUpdateMode::Immediate => Self::Immediate,
        }
    }
}

/// Log format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Human-readable text.
    Text,
}

impl From<LogFormat> for telemetry::LogFormat {
    fn from(format: LogFormat) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Text => Self::Text,
        }
    }
}

impl RunArgs {
    /// The settings that plans depend on, and the gateway settings of the chart, which namespaces
    /// may override.
    ///
    /// # Errors
    /// When the gateway settings or a peer of NetworkPolicies cannot be read or parsed.
    pub fn settings(&self) -> Result<(PlanSettings, GatewaySettings), OperatorError> {
        let policy = match self.image_pull_policy {
            PullPolicy::Always => "Always",
            PullPolicy::IfNotPresent => "IfNotPresent",
            PullPolicy::Never => "Never",
        };
        let gateways = self.gateway_settings()?;
        let mut settings =
            PlanSettings {
                gateway_template: PodTemplatePatch::default(),
                gateway_autoscaler: GatewayAutoscaler::None,
                gateway_problem: None,
                fixed_user_ids: self.user_ids == UserIds::Fixed,
                gateway_image: self.gateway_image.clone(),
                // Known only after the Secret has been read.
                operator_public_key: None,
                gateway_replicas: 0,
                runtime_image: self.runtime_image.clone(),
                redis_image: self.redis_image.clone(),
                image_pull_policy: policy.to_owned(),
                image_pull_secrets: self.image_pull_secrets.clone(),
                prometheus_matchers: self.prometheus.prometheus_matchers.clone(),
                promql_gates: self.prometheus.promql_gates != PromQlGates::Disabled,
                tracing: self.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty()).map(
                    |endpoint| TracingSettings { endpoint, per_million: self.trace_per_million },
                ),
                network_policies: self.policies.settings()?,
            };
        let wrong = |why| OperatorError::Argument(format!("--gateway-settings-file: {why}"));
        gateways.clone().apply_to(&mut settings).map_err(wrong)?;
        Ok((settings, gateways))
    }

    /// The gateway settings of the chart.
    fn gateway_settings(&self) -> Result<GatewaySettings, OperatorError> {
        let Some(path) = &self.gateway_settings_file else { return Ok(GatewaySettings::default()) };
        let wrong = |why: String| {
            OperatorError::Argument(format!("--gateway-settings-file {}: {why}", path.display()))
        };
        let text = std::fs::read_to_string(path).map_err(|e| wrong(e.to_string()))?;
        settings::parse_settings(&text).map_err(wrong)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn settings_of_gateways_are_read_at_the_start() {
        let settings = |text: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            let argument = format!("--gateway-settings-file={}", file.path().display());
            OperatorCli::try_parse_from(["x", &argument, "--user-ids=Platform"])
                .unwrap()
                .run
                .settings()
        };
        let text = "replicas: 3\ntemplate: { metadata: { labels: { team: ml } }, spec: { priorityClassName: high } }\n";
        let read = settings(text).unwrap().0;
        assert_eq!((read.gateway_replicas, read.fixed_user_ids), (3, false));
        assert_eq!(read.gateway_template.metadata.unwrap().labels["team"], "ml");
        for (text, word) in [
            ("template: { spec: { tolerations: high } }", "tolerations"),
            (
                "template: { spec: { toleration: [] } }",
                "there is no field template.spec.toleration",
            ),
            ("replica: 3", "replica"),
            ("replicas: 0", "replicas: 0 is not within 1 and 1000"),
        ] {
            let wrong = settings(text).unwrap_err().to_string();
            assert!(wrong.contains("--gateway-settings-file") && wrong.contains(word), "{wrong}");
        }
    }

    #[test]
    fn arguments_are_consistent() {
        OperatorCli::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_takes_its_arguments_either_way() {
        let plain = OperatorCli::parse_from([
            "slipway-operator",
            "--namespace=a",
            "--image-pull-policy=Never",
        ]);
        assert!(plain.command.is_none());
        assert_eq!(plain.run.namespace.as_deref(), Some("a"));
        assert_eq!(plain.run.settings().unwrap().0.image_pull_policy, "Never");
        let secrets = OperatorCli::parse_from([
            "slipway-operator",
            "--image-pull-secret=a",
            "--image-pull-secret=b",
        ]);
        assert_eq!(secrets.run.settings().unwrap().0.image_pull_secrets, ["a", "b"]);
        let named = OperatorCli::parse_from(["slipway-operator", "run", "--leader-elect=false"]);
        assert!(matches!(named.command, Some(OperatorCommand::Run(args)) if !args.leader_elect));
    }
}
