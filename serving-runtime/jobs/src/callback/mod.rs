//! Callbacks: a POST of the result to the job's URL, retried until it is accepted or given up.

mod run;
pub mod sign;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, StatusCode};
use reqwest::{Client, ClientBuilder, Response};
use slipway_chassis::{error_chain, telemetry};
use slipway_egress::{AllowList, EgressGuard, RefusedUrl, was_refused};
use slipway_runtime_queue::queue::{CallbackOutcome, DueCallback};
use url::Url;

pub use self::run::send_due_callbacks;
use self::sign::CallbackSigner;
use crate::args::CallbackOptions;
use crate::view;

/// Why a callback is not sent to the address that its host name resolves to.
const REFUSED_MESSAGE: &str =
    "none of the addresses of this host may be called; see --callback-allow";

/// Checks whether a callback may go to a URL, as far as this is possible without name resolution.
///
/// # Errors
/// What is wrong, and the remedy.
pub fn check_callback_url(allow: &AllowList, text: &str) -> Result<Url, String> {
    if allow.is_empty() {
        return Err(
            "callback_url: callbacks are not allowed here; start the server with --callback-allow"
                .into(),
        );
    }
    allow.check_url(text).map_err(|refused| match refused {
        RefusedUrl::Invalid(why) => format!("callback_url: {why}"),
        RefusedUrl::Host(_) => format!("callback_url: {refused}; add it to --callback-allow"),
    })
}

#[derive(Debug)]
pub struct CallbackSender {
    allow: AllowList,
    guard: EgressGuard,
    signer: CallbackSigner,
    plain: Client,
    secure: Result<Client, String>,
    options: CallbackOptions,
}

impl CallbackSender {
    /// # Errors
    /// When no HTTP client can be created.
    pub fn new(
        allow: AllowList,
        signer: CallbackSigner,
        options: CallbackOptions,
    ) -> Result<Self, String> {
        let guard = EgressGuard::strict(allow.clone());
        let builder = || -> ClientBuilder {
            guard
                .client_builder()
                .timeout(options.timeout)
                .connect_timeout(options.timeout)
                .pool_max_idle_per_host(4)
                .user_agent(concat!("slipway-runtime/", env!("CARGO_PKG_VERSION")))
        };
        let text = |e: reqwest::Error| format!("no HTTP client: {}", error_chain(&e));
        let plain = builder().tls_certs_only([]).build().map_err(text)?;
        // An image without root certificates can still send callbacks over http.
        let secure = builder().build().map_err(text);
        Ok(Self { allow, guard, signer, plain, secure, options })
    }

    /// Duration of the lease of one attempt, including the time to store its outcome.
    pub fn attempt_lease(&self) -> Duration {
        self.options.timeout * 2 + Duration::from_secs(10)
    }

    /// Makes one attempt.
    pub async fn send(&self, due: &DueCallback) -> CallbackOutcome {
        let attempt =
            u32::try_from(due.job.number("callback_attempts").unwrap_or(1)).unwrap_or(u32::MAX);
        let failed = match self.attempt(due, attempt).await {
            Ok(()) => return CallbackOutcome::Delivered,
            Err(failed) => failed,
        };
        let age = Duration::from_millis(due.age);
        let delay = self
            .options
            .backoff
            .random_delay(attempt)
            .max(failed.not_before.min(self.options.backoff.max));
        if failed.permanent || attempt >= self.options.attempts || age + delay > self.options.age {
            return CallbackOutcome::Dead(failed.message);
        }
        CallbackOutcome::Retry(delay, failed.message)
    }

    async fn attempt(&self, due: &DueCallback, attempt: u32) -> Result<(), FailedAttempt> {
        let text = due.job.text("callback_url").unwrap_or_default();
        // Checked again, although it was checked on submission: the list may have changed since,
        // and producers may write to the stream without using the API.
        let url = check_callback_url(&self.allow, text).map_err(FailedAttempt::permanent)?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let response = self.post(url, due, attempt).await?;
        if !self.guard.is_peer_allowed(&host, response.remote_addr()) {
            return Err(FailedAttempt::permanent(REFUSED_MESSAGE.into()));
        }
        check_response(&response)
    }

    async fn post(
        &self,
        url: Url,
        due: &DueCallback,
        attempt: u32,
    ) -> Result<Response, FailedAttempt> {
        let client = match url.scheme() {
            "http" => &self.plain,
            _ => self.secure.as_ref().map_err(|e| FailedAttempt::transient(e.clone()))?,
        };
        let body = serde_json::to_vec(&view::job_view(&due.id, &due.job, false))
            .map_err(|e| FailedAttempt::permanent(e.to_string()))?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
        let timestamp = i64::try_from(now).unwrap_or(i64::MAX);
        let signature = self
            .signer
            .sign(&due.id, timestamp, &body)
            .map_err(|e| FailedAttempt::permanent(e.to_string()))?;
        let mut trace = HeaderMap::new();
        if let Some(parent) =
            due.job.text("traceparent").and_then(|it| HeaderValue::from_str(it).ok())
        {
            trace.insert("traceparent", parent);
        }
        telemetry::inject_traceparent(&mut trace);
        let request = client
            .post(url)
            .headers(trace)
            .header(CONTENT_TYPE, "application/json")
            .header("idempotency-key", &due.id)
            .header("webhook-id", &due.id)
            .header("webhook-timestamp", timestamp)
            .header("webhook-signature", signature)
            .header(slipway_contracts::headers::ATTEMPT, attempt)
            .body(body);
        // The body of the response is never read, so it needs no limit.
        request.send().await.map_err(|e| {
            if was_refused(&e) {
                return FailedAttempt::permanent(REFUSED_MESSAGE.into());
            }
            // Without the URL: it may carry a token, and this text is stored.
            FailedAttempt::transient(error_chain(&e.without_url()))
        })
    }
}

#[derive(Debug, PartialEq, Eq)]
struct FailedAttempt {
    message: String,
    permanent: bool,
    not_before: Duration,
}

impl FailedAttempt {
    fn permanent(message: String) -> Self {
        Self { message, permanent: true, not_before: Duration::ZERO }
    }

    fn transient(message: String) -> Self {
        Self { message, permanent: false, not_before: Duration::ZERO }
    }
}

fn check_response(response: &Response) -> Result<(), FailedAttempt> {
    let status = response.status();
    let retry_after = response
        .headers()
        .get(RETRY_AFTER)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse().ok());
    check_status(status, retry_after)
}

fn check_status(status: StatusCode, retry_after: Option<u64>) -> Result<(), FailedAttempt> {
    let message = format!("the receiver answers {status}");
    match status {
        s if s.is_success() => Ok(()),
        s if s.is_redirection() => {
            Err(FailedAttempt::permanent(format!("{message}; redirects are not followed")))
        }
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::CONFLICT
        | StatusCode::TOO_EARLY
        | StatusCode::TOO_MANY_REQUESTS => Err(FailedAttempt {
            not_before: Duration::from_secs(retry_after.unwrap_or(0)),
            ..FailedAttempt::transient(message)
        }),
        s if s.is_client_error() => Err(FailedAttempt::permanent(message)),
        _ => Err(FailedAttempt {
            not_before: Duration::from_secs(retry_after.unwrap_or(0)),
            ..FailedAttempt::transient(message)
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_callback_is_told_why_there_is_none() {
        let allow = AllowList::new(&["hooks.example.org".parse().unwrap()]);
        let why =
            |allow: &AllowList, url: &str| check_callback_url(allow, url).map(drop).unwrap_err();
        assert!(check_callback_url(&allow, "https://hooks.example.org/x").is_ok());
        assert!(
            why(&AllowList::default(), "https://hooks.example.org/")
                .contains("not allowed here; start the server")
        );
        assert!(
            why(&allow, "http://169.254.169.254/")
                .contains("\"169.254.169.254\" is not allowed here; add it to")
        );
        assert_eq!(
            why(&allow, "ftp://hooks.example.org/"),
            "callback_url: scheme \"ftp\"; want http or https"
        );
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let of = |code: u16| check_status(StatusCode::from_u16(code).unwrap(), Some(7));
        assert!(of(200).is_ok() && of(204).is_ok());
        for code in [408, 409, 425, 429, 500, 502, 503, 504] {
            let failed = of(code).unwrap_err();
            assert!(!failed.permanent && failed.not_before == Duration::from_secs(7), "{code}");
        }
        for code in [301, 302, 307, 308, 400, 401, 404, 410, 422] {
            assert!(of(code).unwrap_err().permanent, "{code}");
        }
    }
}
