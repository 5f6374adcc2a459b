//! The process: arguments, client, leader election, admin server, RBAC rules, start and shutdown.

pub mod admin;
pub mod args;
pub mod client;
pub mod error;
pub mod lease;
pub mod network_policies;
pub mod operator_key;
pub mod rbac;
pub mod run;
