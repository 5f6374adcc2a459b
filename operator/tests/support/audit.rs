//! The API server's audit log of an operator's requests.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub verb: String,
    pub user: User,
    /// The requested object.
    #[serde(default)]
    pub object_ref: ObjectRef,
    /// The response status.
    #[serde(default)]
    pub response_status: Answer,
}

/// The user who sent a request.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    pub username: String,
}

/// The requested object.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ObjectRef {
    #[serde(default)]
    pub resource: String,
    #[serde(default)]
    pub subresource: String,
    #[serde(default)]
    pub name: String,
}

/// The response status.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    /// HTTP status code.
    #[serde(default)]
    pub code: u16,
}

impl Request {
    /// The request as a line of text.
    pub fn line(&self) -> String {
        let ObjectRef { resource, subresource, name } = &self.object_ref;
        format!("{} {resource}/{subresource} {name} -> {}", self.verb, self.response_status.code)
    }

    /// Whether the request renews the lease.
    pub fn is_of_lease(&self) -> bool {
        self.object_ref.resource == "leases"
    }
}

/// All requests of a user so far, except watches, which are open all the time.
pub fn requests(log: &Path, user: &str) -> Vec<Request> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let all = text.lines().filter_map(|line| serde_json::from_str::<Request>(line).ok());
    all.filter(|r| r.user.username == user && r.verb != "watch").collect()
}
