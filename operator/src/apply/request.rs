//! Runs one request to the API server.

use std::future::Future;
use std::time::Duration;

use crate::apply::error::{WriteError, WriteFault};

/// Time limit of one write, including the connection set-up.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Runs one request with a time limit and adds the verb, kind and name to its error.
pub async fn with_timeout<T>(
    verb: &'static str,
    kind: &'static str,
    name: &str,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, WriteError> {
    let answer = tokio::time::timeout(WRITE_TIMEOUT, request).await;
    let fault = match answer {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => WriteFault::from(error),
        Err(_) => WriteFault::Timeout(WRITE_TIMEOUT),
    };
    Err(WriteError { verb, kind, name: name.to_owned(), fault })
}
