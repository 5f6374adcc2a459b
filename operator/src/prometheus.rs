//! The connection to Prometheus: who the operator is there, and whom it trusts. What is secret is
//! in files, which are read again, so that a token or a certificate may be renewed while the
//! operator runs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use clap::{Args, ValueEnum};
use prometheus_http_query::Client;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Identity};
use sha2::{Digest, Sha256};
use slipway_core::evidence::EvidenceQuery;
use slipway_core::judge::scope;

use crate::error::{OperatorError, error_chain};

/// How long one query may take, body included.
pub(crate) const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How long what was read of the files is believed.
const FILES_TTL: Duration = Duration::from_secs(5);
/// Largest file that is read.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// Where Prometheus is, and how to log in there.
#[derive(Args, Clone, Debug, Default)]
pub struct PrometheusArgs {
    /// Prometheus that the gates are judged by, for example http://prometheus-server.monitoring. User and password go into files.
    #[arg(long, env = "SLIPWAY_PROMETHEUS_URL")]
    pub prometheus_url: Option<String>,

    /// File with a bearer token. Like all of these files it is read again within seconds when it
    /// changes.
    #[arg(long, env = "SLIPWAY_PROMETHEUS_BEARER_TOKEN_FILE", value_name = "PATH")]
    pub prometheus_bearer_token_file: Option<PathBuf>,

    /// File with the user of basic authentication.
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_USERNAME_FILE",
        value_name = "PATH",
        requires = "prometheus_password_file",
        conflicts_with = "prometheus_bearer_token_file"
    )]
    pub prometheus_username_file: Option<PathBuf>,

    /// File with the password of basic authentication.
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_PASSWORD_FILE",
        value_name = "PATH",
        requires = "prometheus_username_file"
    )]
    pub prometheus_password_file: Option<PathBuf>,

    /// Header that is sent with every query, for example X-Scope-OrgID=team-a; may be given
    /// several times.
    #[arg(long = "prometheus-header", value_name = "NAME=VALUE", value_parser = parse_header)]
    pub prometheus_headers: Vec<(String, String)>,

    /// The same with the value in a file; may be given several times.
    #[arg(long = "prometheus-header-file", value_name = "NAME=PATH", value_parser = parse_header)]
    pub prometheus_header_files: Vec<(String, String)>,

    /// File with certificates (PEM) of authorities that are trusted besides those of the system.
    #[arg(long, env = "SLIPWAY_PROMETHEUS_CA_FILE", value_name = "PATH")]
    pub prometheus_ca_file: Option<PathBuf>,

    /// File with the operator's own certificate (PEM).
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_CLIENT_CERTIFICATE_FILE",
        value_name = "PATH",
        requires = "prometheus_client_key_file"
    )]
    pub prometheus_client_certificate_file: Option<PathBuf>,

    /// File with the key of that certificate (PEM).
    #[arg(
        long,
        env = "SLIPWAY_PROMETHEUS_CLIENT_KEY_FILE",
        value_name = "PATH",
        requires = "prometheus_client_certificate_file"
    )]
    pub prometheus_client_key_file: Option<PathBuf>,

    /// Further matcher of the operator's own queries, for example cluster="eu-1", where one store
    /// holds the metrics of several clusters; may be given several times.
    #[arg(long = "prometheus-matcher", value_name = "MATCHER", value_parser = parse_matcher)]
    pub prometheus_matchers: Vec<String>,

    /// What the queries of gates of type PromQL may see.
    #[arg(long, env = "SLIPWAY_PROMQL_GATES", value_enum, default_value_t)]
    pub promql_gates: PromQlGates,
}

/// What the queries of gates of type PromQL may see.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PromQlGates {
    /// Series of the namespace of their ModelDeployment (label `namespace`), and of those only what
    /// `--prometheus-matcher` lets through.
    #[default]
    Namespace,
    /// Whatever the operator may see.
    Everything,
    /// Nothing: such gates are refused.
    Disabled,
}

fn parse_header(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("want NAME=VALUE, as in X-Scope-OrgID=team-a")?;
    HeaderName::try_from(name).map_err(|_| format!("{name:?} is no name of a header"))?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A matcher of labels as PromQL writes it.
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

/// What was read of all files.
struct ConnectionFiles {
    authorization: Option<HeaderValue>,
    headers: HeaderMap,
    authorities: Vec<Certificate>,
    identity: Option<Identity>,
    /// Of everything above.
    hash: [u8; 32],
}

struct CachedClient {
    read_at: Instant,
    hash: [u8; 32],
    client: Client,
}

/// The connection.
pub struct PrometheusConnection {
    url: String,
    args: PrometheusArgs,
    cached: Mutex<Option<CachedClient>>,
}

impl PrometheusConnection {
    /// The connection that the arguments describe, if they name a Prometheus.
    ///
    /// # Errors
    /// When an argument is wrong, or a file cannot be read or understood: better at the start than
    /// at the first rollout.
    pub fn open(args: &PrometheusArgs) -> Result<Option<Self>, OperatorError> {
        let Some(url) = args.prometheus_url.clone() else { return Ok(None) };
        let wrong = |why: String| OperatorError::Argument(why);
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

    /// A query as it is asked for somebody of `namespace`: what users wrote sees no more than they
    /// may.
    ///
    /// # Errors
    /// Why it may not be asked.
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

    /// A client with what the files say now.
    ///
    /// # Errors
    /// Which file cannot be read or understood, and why.
    pub fn client(&self) -> Result<Client, String> {
        let mut cached = self.cached.lock().unwrap_or_else(PoisonError::into_inner);
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
        // Whoever answers for the address does not get to send the credentials elsewhere.
        .redirect(reqwest::redirect::Policy::none())
        .default_headers(headers)
        .tls_certs_merge(files.authorities);
    if let Some(identity) = files.identity {
        builder = builder.identity(identity);
    }
    let http = builder.build().map_err(|e| wrong(&e))?;
    Client::from(http, url).map_err(|e| wrong(&e))
}

impl PrometheusArgs {
    fn read_files(&self) -> Result<ConnectionFiles, String> {
        let mut hash = Sha256::new();
        let mut take = |flag: &str, path: &Path| {
            let bytes = read_file(path)
                .map_err(|why| format!("--prometheus-{flag} {}: {why}", path.display()))?;
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(&bytes);
            Ok::<_, String>(bytes)
        };
        let text = |flag: &str, bytes: Vec<u8>| {
            let text = String::from_utf8(bytes)
                .map_err(|_| format!("--prometheus-{flag}: the file is no text"))?;
            Ok::<_, String>(text.trim().to_owned())
        };
        let value = |flag: &str, text: &str, secret: bool| {
            let mut value = HeaderValue::try_from(text)
                .map_err(|_| format!("--prometheus-{flag}: is no value of a header"))?;
            value.set_sensitive(secret);
            Ok::<_, String>(value)
        };
        let mut authorization = None;
        if let Some(path) = &self.prometheus_bearer_token_file {
            let token = text("bearer-token-file", take("bearer-token-file", path)?)?;
            authorization = Some(value("bearer-token-file", &format!("Bearer {token}"), true)?);
        }
        if let (Some(user), Some(password)) =
            (&self.prometheus_username_file, &self.prometheus_password_file)
        {
            let user = text("username-file", take("username-file", user)?)?;
            let password = text("password-file", take("password-file", password)?)?;
            let both =
                base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
            authorization = Some(value("password-file", &format!("Basic {both}"), true)?);
        }
        let mut headers = HeaderMap::new();
        for (name, said) in &self.prometheus_headers {
            insert_header(&mut headers, name, value("header", said, false)?);
        }
        for (name, path) in &self.prometheus_header_files {
            let said = text("header-file", take("header-file", Path::new(path))?)?;
            insert_header(&mut headers, name, value("header-file", &said, true)?);
        }
        let mut authorities = Vec::new();
        if let Some(path) = &self.prometheus_ca_file {
            let pem = take("ca-file", path)?;
            authorities = Certificate::from_pem_bundle(&pem)
                .map_err(|e| format!("--prometheus-ca-file: {}", error_chain(&e)))?;
            if authorities.is_empty() {
                return Err(format!(
                    "--prometheus-ca-file {}: holds no certificate in PEM",
                    path.display()
                ));
            }
        }
        let mut identity = None;
        if let (Some(certificate), Some(key)) =
            (&self.prometheus_client_certificate_file, &self.prometheus_client_key_file)
        {
            let mut pem = take("client-certificate-file", certificate)?;
            pem.push(b'\n');
            pem.extend(take("client-key-file", key)?);
            identity = Some(Identity::from_pem(&pem).map_err(|e| {
                format!("--prometheus-client-certificate-file: {}", error_chain(&e))
            })?);
        }
        Ok(ConnectionFiles {
            authorization,
            headers,
            authorities,
            identity,
            hash: hash.finalize().into(),
        })
    }
}

fn insert_header(headers: &mut HeaderMap, name: &str, value: HeaderValue) {
    // Its form was checked with the arguments.
    if let Ok(name) = HeaderName::try_from(name) {
        headers.insert(name, value);
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|e| e.to_string())?;
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|e| e.to_string())?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(format!("is larger than {MAX_FILE_BYTES} bytes"));
    }
    Ok(bytes)
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
        let _ = rustls::crypto::ring::default_provider().install_default();
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
