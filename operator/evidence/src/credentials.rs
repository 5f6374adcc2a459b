//! Secrets are in files that are read repeatedly, so that a token or certificate can be renewed
//! while the operator runs.

use std::path::Path;

use base64::Engine as _;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Certificate, Identity};
use sha2::{Digest, Sha256};
use slipway_chassis::error_chain;

use crate::args::PrometheusArgs;

/// Largest accepted file.
const MAX_FILE_BYTES: u64 = 256 << 10;

/// The content of all files.
pub(crate) struct ConnectionFiles {
    pub(crate) authorization: Option<HeaderValue>,
    pub(crate) headers: HeaderMap,
    pub(crate) authorities: Vec<Certificate>,
    pub(crate) identity: Option<Identity>,
    /// Hash over all fields above.
    pub(crate) hash: [u8; 32],
}

impl PrometheusArgs {
    /// Reads all files.
    ///
    /// # Errors
    /// Which file cannot be read or parsed, and why.
    pub(crate) fn read_files(&self) -> Result<ConnectionFiles, String> {
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
        for (name, header_text) in &self.prometheus_headers {
            insert_header(&mut headers, name, value("header", header_text, false)?);
        }
        for (name, path) in &self.prometheus_header_files {
            let header_text = text("header-file", take("header-file", Path::new(path))?)?;
            insert_header(&mut headers, name, value("header-file", &header_text, true)?);
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
    // The format was checked with the arguments.
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
