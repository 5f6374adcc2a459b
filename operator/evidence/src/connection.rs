//! The connection to Prometheus: authentication and trust.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use prometheus_http_query::Client;
use reqwest::header::AUTHORIZATION;
use slipway_chassis::error_chain;
use slipway_judge::evidence::EvidenceQuery;
use slipway_judge::scope;

use crate::args::{PromQlGates, PrometheusArgs};
use crate::credentials::ConnectionFiles;
use crate::errors::PrometheusArgumentError;

/// Time limit of one query, including the body.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the content of the files counts as current.
const FILES_TTL: Duration = Duration::from_secs(5);

struct CachedClient {
    read_at: Instant,
    hash: [u8; 32],
    client: Client,
}

/// A connection to Prometheus.
pub struct PrometheusConnection {
    url: String,
    args: PrometheusArgs,
    cached: Mutex<Option<CachedClient>>,
}

impl PrometheusConnection {
    /// Opens the connection that the arguments describe; `None` when they contain no Prometheus.
    ///
    /// # Errors
    /// When an argument is invalid, or a file cannot be read or parsed. Checked at the start
    /// instead of at the first rollout.
    pub fn open(args: &PrometheusArgs) -> Result<Option<Self>, PrometheusArgumentError> {
        let Some(url) = args.prometheus_url.clone() else { return Ok(None) };
        let wrong = PrometheusArgumentError;
        let parsed =
            reqwest::Url::parse(&url).map_err(|e| wrong(format!("--prometheus-url {url}: {e}")))?;
        if !["http", "https"].contains(&parsed.scheme()) {
            return Err(wrong(format!(
                "--prometheus-url {url}: must begin with http:// or https://"
            )));
        }
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(wrong(
                "--prometheus-url: has a user or password, which anybody could read in the pod; give --prometheus-username-file and --prometheus-password-file".into(),
            ));
        }
        let connection = Self { url, args: args.clone(), cached: Mutex::default() };
        connection.client().map_err(wrong)?;
        Ok(Some(connection))
    }

    /// The query as it is sent for a ModelDeployment of `namespace`: queries of users are
    /// restricted to the series that they may read.
    ///
    /// # Errors
    /// Why the query is not allowed.
    pub fn scope_query(
        &self,
        queries: &EvidenceQuery,
        query: String,
        namespace: &str,
    ) -> Result<String, String> {
        match (queries, self.args.promql_gates) {
            (EvidenceQuery::Counts(_) | EvidenceQuery::Buckets(_), _)
            | (_, PromQlGates::Everything) => Ok(query),
            (EvidenceQuery::Value(_), PromQlGates::Namespace) => {
                scope::confine_to_namespace(&query, namespace, &self.args.prometheus_matchers)
            }
            (EvidenceQuery::Value(_), PromQlGates::Disabled) => {
                Err("gates of type PromQL are switched off".to_owned())
            }
        }
    }

    /// A client with the current content of the files.
    ///
    /// # Errors
    /// Which file cannot be read or parsed, and why.
    pub fn client(&self) -> Result<Client, String> {
        let mut cached = self.cached.lock();
        if let Some(known) = cached.as_ref().filter(|known| known.read_at.elapsed() < FILES_TTL) {
            return Ok(known.client.clone());
        }
        let files = self.args.read_files()?;
        if let Some(known) = cached.as_mut().filter(|known| known.hash == files.hash) {
            known.read_at = Instant::now();
            return Ok(known.client.clone());
        }
        let hash = files.hash;
        let client = build_http_client(&self.url, files)?;
        *cached = Some(CachedClient { read_at: Instant::now(), hash, client: client.clone() });
        Ok(client)
    }
}

fn build_http_client(url: &str, files: ConnectionFiles) -> Result<Client, String> {
    let wrong = |e: &dyn std::error::Error| format!("--prometheus-url {url}: {}", error_chain(e));
    let mut headers = files.headers;
    if let Some(authorization) = files.authorization {
        headers.insert(AUTHORIZATION, authorization);
    }
    let mut builder = reqwest::Client::builder()
        .timeout(QUERY_TIMEOUT)
        .connect_timeout(Duration::from_secs(2))
        // A redirect could send the credentials to another host.
        .redirect(reqwest::redirect::Policy::none())
        .default_headers(headers)
        .tls_certs_merge(files.authorities);
    if let Some(identity) = files.identity {
        builder = builder.identity(identity);
    }
    let http = builder.build().map_err(|e| wrong(&e))?;
    Client::from(http, url).map_err(|e| wrong(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_at_the_start() {
        let open = |change: &dyn Fn(&mut PrometheusArgs)| {
            let mut args = PrometheusArgs {
                prometheus_url: Some("http://p:9090".into()),
                ..PrometheusArgs::default()
            };
            change(&mut args);
            PrometheusConnection::open(&args)
                .err()
                .map(|error| error.to_string())
                .unwrap_or_default()
        };
        slipway_chassis::tls::install_provider();
        assert_eq!(open(&|_| {}), "");
        assert!(
            open(&|args| args.prometheus_url = Some("p:x".into())).contains("--prometheus-url")
        );
        let password = open(&|args| args.prometheus_url = Some("http://me:secret@p".into()));
        assert!(
            password.contains("--prometheus-password-file") && !password.contains("secret"),
            "{password}"
        );
        let missing = open(&|args| args.prometheus_bearer_token_file = Some("/nowhere".into()));
        assert!(missing.contains("--prometheus-bearer-token-file /nowhere"), "{missing}");
        let file = tempfile::NamedTempFile::new().unwrap();
        let empty = open(&|args| args.prometheus_ca_file = Some(file.path().into()));
        assert!(empty.contains("holds no certificate"), "{empty}");
    }
}
