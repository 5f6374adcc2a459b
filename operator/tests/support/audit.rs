//! The API server's own account of what an operator asked.

use std::fs;
use std::path::Path;

use serde::Deserialize;

/// One request.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Verb.
    pub verb: String,
    /// Who asked.
    pub user: User,
    /// What was asked for.
    #[serde(default)]
    pub object_ref: ObjectRef,
    /// What was answered.
    #[serde(default)]
    pub response_status: Answer,
}

/// Who asked.
#[derive(Clone, Debug, Deserialize)]
pub struct User {
    /// Name.
    pub username: String,
}

/// What was asked for.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct ObjectRef {
    /// Resource.
    #[serde(default)]
    pub resource: String,
    /// Subresource.
    #[serde(default)]
    pub subresource: String,
    /// Name.
    #[serde(default)]
    pub name: String,
}

/// What was answered.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Answer {
    /// HTTP status.
    #[serde(default)]
    pub code: u16,
}

impl Request {
    /// For people.
    pub fn line(&self) -> String {
        let ObjectRef { resource, subresource, name } = &self.object_ref;
        format!("{} {resource}/{subresource} {name} -> {}", self.verb, self.response_status.code)
    }

    /// Renewals of the lease.
    pub fn is_of_lease(&self) -> bool {
        self.object_ref.resource == "leases"
    }
}

/// Everything that a user asked so far, watches left out: they are open all the time.
pub fn requests(log: &Path, user: &str) -> Vec<Request> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let all = text.lines().filter_map(|line| serde_json::from_str::<Request>(line).ok());
    all.filter(|r| r.user.username == user && r.verb != "watch").collect()
}
