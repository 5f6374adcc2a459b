//! The environment of a test or the demo: a namespace with a model store, a load generator, and
//! ModelDeployments from `examples/`.

mod account;
mod http;
mod jobs;
mod load;
mod promise;
mod rollout;
mod status;
mod test_world;

pub use account::{LoadAccount, RevisionAccount, SingleRequest};
pub use http::{HttpClient, HttpResponse};
pub use jobs::{QueueBroker, ReceivedCallback};
pub use promise::{run_promise, run_promise_alone};
pub use rollout::ROLLOUT_TIMEOUT;
pub use status::{
    candidate_revision, check_ready, deployment_name, describe_status, find_condition,
    revision_weights, stable_revision,
};
pub use test_world::{PODS_TIMEOUT, TestWorld, infer_request};
