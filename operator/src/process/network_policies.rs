//! Arguments for NetworkPolicies, which restrict who may reach the pods.

use clap::{Args, ValueEnum};
use k8s_openapi::api::networking::v1::NetworkPolicyPeer;
use serde_json::Value;
use slipway_objects::settings::NetworkPolicies;

use crate::process::error::OperatorError;

/// Whether NetworkPolicies are created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum NetworkPolicyMode {
    /// For gateways, model servers and workers.
    Enabled,
    /// None; existing ones are deleted.
    #[default]
    Disabled,
}

/// NetworkPolicies of gateways, model servers and workers. Peers are JSON lists of
/// NetworkPolicyPeer, as in `[{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name":
/// "monitoring"}}}]`.
#[derive(Args, Clone, Debug, Default)]
pub struct NetworkPolicyArgs {
    /// Whether NetworkPolicies are created for gateways, model servers and workers.
    #[arg(long, env = "SLIPWAY_NETWORK_POLICIES", value_enum, default_value_t = NetworkPolicyMode::Disabled)]
    pub network_policies: NetworkPolicyMode,

    /// Who may reach the data port of gateways; all peers when empty.
    #[arg(
        long,
        env = "SLIPWAY_NETWORK_POLICY_DATA_FROM",
        value_name = "PEERS",
        default_value = ""
    )]
    pub network_policy_data_from: String,

    /// Who may reach the private port of gateways, in addition to the pods of their namespace.
    #[arg(
        long,
        env = "SLIPWAY_NETWORK_POLICY_PRIVATE_FROM",
        value_name = "PEERS",
        default_value = ""
    )]
    pub network_policy_private_from: String,

    /// Who may reach the metrics ports; all peers when empty.
    #[arg(
        long,
        env = "SLIPWAY_NETWORK_POLICY_METRICS_FROM",
        value_name = "PEERS",
        default_value = ""
    )]
    pub network_policy_metrics_from: String,

    /// The operator's own pods. Required when peers for metrics are set, because metrics and state
    /// streams share a port.
    #[arg(long, env = "SLIPWAY_NETWORK_POLICY_OPERATOR", value_name = "PEERS", default_value = "")]
    pub network_policy_operator: String,

    /// Further ports that stay open to all peers, for a service mesh that accepts connections on
    /// them.
    #[arg(long, env = "SLIPWAY_NETWORK_POLICY_OPEN_PORTS", value_name = "PORT", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub network_policy_open_ports: Vec<u16>,
}

impl NetworkPolicyArgs {
    /// The settings for NetworkPolicies; `None` when none are created.
    ///
    /// # Errors
    /// When a list of peers is invalid, or when the operator would lock itself out.
    pub fn settings(&self) -> Result<Option<NetworkPolicies>, OperatorError> {
        let policies = NetworkPolicies {
            data_from: parse_peers(&self.network_policy_data_from, "data-from", "dataFrom")?,
            private_from: parse_peers(
                &self.network_policy_private_from,
                "private-from",
                "privateFrom",
            )?,
            metrics_from: parse_peers(
                &self.network_policy_metrics_from,
                "metrics-from",
                "metricsFrom",
            )?,
            operator: parse_peers(&self.network_policy_operator, "operator", "mode")?,
            open_ports: self.network_policy_open_ports.clone(),
        };
        if self.network_policies == NetworkPolicyMode::Disabled {
            return Ok(None);
        }
        if !policies.metrics_from.is_empty() && policies.operator.is_empty() {
            return Err(OperatorError::Argument(
                "--network-policy-metrics-from: without --network-policy-operator the operator could not hear gateways any more, whose metrics and state streams have one port; name its pods there"
                    .to_owned(),
            ));
        }
        Ok(Some(policies))
    }
}

/// Parses a list of peers. Values that the API server would reject, or drop silently, are rejected
/// once at the start instead of at every ModelDeployment.
fn parse_peers(
    text: &str,
    argument: &str,
    value: &str,
) -> Result<Vec<NetworkPolicyPeer>, OperatorError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = |why: String| {
        OperatorError::Argument(format!(
            "--network-policy-{argument} (networkPolicies.{value} of the chart): {why}"
        ))
    };
    let given: Value = serde_json::from_str(text).map_err(|e| wrong(format!("is no JSON: {e}")))?;
    let peers: Vec<NetworkPolicyPeer> = serde_json::from_value(given.clone())
        .map_err(|e| wrong(format!("is no list of NetworkPolicyPeer: {e}")))?;
    for (index, (peer, given)) in
        peers.iter().zip(given.as_array().into_iter().flatten()).enumerate()
    {
        let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
        if selects == peer.ip_block.is_some() {
            let why = "needs an ipBlock, or else a podSelector, a namespaceSelector or both";
            return Err(wrong(format!("item {index} {why}")));
        }
        if serde_json::to_value(peer).ok().as_ref() != Some(given) {
            return Err(wrong(format!(
                "item {index} has fields that a NetworkPolicyPeer does not have: {given}"
            )));
        }
    }
    Ok(peers)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: NetworkPolicyArgs,
    }

    fn settings(arguments: &[&str]) -> Result<Option<NetworkPolicies>, String> {
        let all = ["x"].iter().chain(arguments);
        Cli::try_parse_from(all).unwrap().args.settings().map_err(|e| e.to_string())
    }

    #[test]
    fn network_policies_are_made_only_where_it_is_said() {
        assert_eq!(settings(&[]), Ok(None));
        assert_eq!(settings(&["--network-policies=Enabled"]), Ok(Some(NetworkPolicies::default())));
        let peers = r#"[{"ipBlock":{"cidr":"10.0.0.0/8"}},{"namespaceSelector":{},"podSelector":{"matchLabels":{"a":"b"}}}]"#;
        let all = ["data-from", "private-from", "metrics-from", "operator"];
        let mut arguments: Vec<_> =
            all.iter().map(|name| format!("--network-policy-{name}={peers}")).collect();
        arguments.push("--network-policy-open-ports=4143,15008".to_owned());
        let arguments: Vec<_> =
            arguments.iter().map(String::as_str).chain(["--network-policies=Enabled"]).collect();
        let read = settings(&arguments).unwrap().unwrap();
        for list in [&read.data_from, &read.private_from, &read.metrics_from, &read.operator] {
            assert_eq!(serde_json::to_string(list).unwrap(), peers);
        }
        assert_eq!(read.open_ports, [4143, 15008]);
    }

    #[test]
    fn peers_that_are_none_are_refused_at_the_start_by_the_name_of_their_value() {
        for (given, part) in [
            ("[{", "is no JSON"),
            (r#"{"podSelector":{}}"#, "is no list of NetworkPolicyPeer"),
            ("[{}]", "item 0 needs an ipBlock"),
            (r#"[{"podSelecter":{}}]"#, "item 0 needs an ipBlock"),
            (r#"[{"podSelector":{},"ipBlock":{"cidr":"10.0.0.0/8"}}]"#, "item 0 needs an ipBlock"),
            (
                r#"[{"podSelector":{}},{"podSelector":{"matchLables":{"a":"b"}}}]"#,
                "item 1 has fields",
            ),
        ] {
            let wrong = settings(&[&format!("--network-policy-metrics-from={given}")]).unwrap_err();
            assert!(
                wrong.contains("networkPolicies.metricsFrom") && wrong.contains(part),
                "{given}: {wrong}"
            );
        }
    }

    #[test]
    fn an_operator_does_not_shut_itself_out() {
        let metrics = r#"--network-policy-metrics-from=[{"namespaceSelector":{}}]"#;
        let wrong = settings(&["--network-policies=Enabled", metrics]).unwrap_err();
        assert!(wrong.contains("--network-policy-operator"), "{wrong}");
    }
}
