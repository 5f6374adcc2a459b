//! Arguments for the address of Prometheus and the authentication there.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use reqwest::header::HeaderName;

/// Address of Prometheus, and authentication.
#[derive(Args, Clone, Debug, Default)]
pub struct PrometheusArgs {
    /// Prometheus that provides the metrics of the gates, for example
    /// http://prometheus-server.monitoring. User and password must be given in files.
    #[arg(long, env = "SLIPWAY_PROMETHEUS_URL")]
    pub prometheus_url: Option<String>,

    /// File with a bearer token. Like all of these files it is read again within seconds after a
    /// change.
    #[arg(long, env = "SLIPWAY_PROMETHEUS_BEARER_TOKEN_FILE", value_name = "PATH")]
    pub prometheus_bearer_token_file: Option<PathBuf>,

    /// File with the user name for basic authentication.
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_USERNAME_FILE",
        value_name = "PATH",
        requires = "prometheus_password_file",
        conflicts_with = "prometheus_bearer_token_file"
    )]
    pub prometheus_username_file: Option<PathBuf>,

    /// File with the password for basic authentication.
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_PASSWORD_FILE",
        value_name = "PATH",
        requires = "prometheus_username_file"
    )]
    pub prometheus_password_file: Option<PathBuf>,

    /// Header that is sent with every query, for example X-Scope-OrgID=team-a; can be repeated.
    #[arg(long = "prometheus-header", value_name = "NAME=VALUE", value_parser = parse_header)]
    pub prometheus_headers: Vec<(String, String)>,

    /// Like --prometheus-header, with the value in a file; can be repeated.
    #[arg(long = "prometheus-header-file", value_name = "NAME=PATH", value_parser = parse_header)]
    pub prometheus_header_files: Vec<(String, String)>,

    /// File with certificates (PEM) of authorities to trust in addition to those of the system.
    #[arg(long, env = "SLIPWAY_PROMETHEUS_CA_FILE", value_name = "PATH")]
    pub prometheus_ca_file: Option<PathBuf>,

    /// File with the operator's client certificate (PEM).
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_CLIENT_CERTIFICATE_FILE",
        value_name = "PATH",
        requires = "prometheus_client_key_file"
    )]
    pub prometheus_client_certificate_file: Option<PathBuf>,

    /// File with the key of the client certificate (PEM).
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_CLIENT_KEY_FILE",
        value_name = "PATH",
        requires = "prometheus_client_certificate_file"
    )]
    pub prometheus_client_key_file: Option<PathBuf>,

    /// Additional matcher for the operator's own queries, for example cluster="eu-1", when one
    /// store contains the metrics of several clusters; can be repeated.
    #[arg(long = "prometheus-matcher", value_name = "MATCHER", value_parser = parse_matcher)]
    pub prometheus_matchers: Vec<String>,

    /// Which series the queries of gates of type PromQL may read.
    #[arg(long, env = "SLIPWAY_PROMQL_GATES", value_enum, default_value_t)]
    pub promql_gates: PromQlGates,
}

/// Which series the queries of gates of type PromQL may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PromQlGates {
    /// Series of the ModelDeployment's namespace (label `namespace`) that also match
    /// `--prometheus-matcher`.
    #[default]
    Namespace,
    /// All series that the operator may read.
    Everything,
    /// None: such gates are rejected.
    Disabled,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("want NAME=VALUE, as in X-Scope-OrgID=team-a")?;
    HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// Parses a label matcher in PromQL syntax.
fn parse_matcher(text: &str) -> Result<String, String> {
    let wrong = || {
        format!(
            "{text:?}: want a matcher such as cluster=\"eu-1\", with one of =, !=, =~ and !~ and a value in double quotes"
        )
    };
    let name = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').ok_or_else(wrong)?;
    let (name, rest) = text.split_at(name);
    let value = ["=~", "!~", "!=", "="]
        .into_iter()
        .find_map(|operator| rest.strip_prefix(operator))
        .ok_or_else(wrong)?;
    let value =
        value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).ok_or_else(wrong)?;
    let plain = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && !value.contains(['"', '\\', '\n', '{']);
    plain.then(|| text.to_owned()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matchers_are_those_of_promql() {
        for good in [r#"cluster="eu-1""#, r#"cluster!="eu""#, r#"_c=~"eu.*""#, r#"cluster!~"""#] {
            assert_eq!(parse_matcher(good).as_deref(), Ok(good));
        }
        for bad in [
            "cluster=eu",
            "cluster",
            r#"1c="a""#,
            r#"c="a"b""#,
            r#"c="a"} or up{x="""#,
            r#"c=="a""#,
            r#"="a""#,
            r#"c="a\"""#,
        ] {
            assert!(parse_matcher(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_have_names_and_values() {
        assert_eq!(parse_header("X-Scope-OrgID=a=b"), Ok(("X-Scope-OrgID".into(), "a=b".into())));
        assert!(parse_header("X-Scope-OrgID").is_err() && parse_header("a b=c").is_err());
    }
}
