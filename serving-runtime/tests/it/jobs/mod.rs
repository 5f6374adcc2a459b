//! Jobs from the request to the callback, with a real Redis and a real NATS.

/// Defines one test for each kind of broker.
macro_rules! on_each_broker {
    ($($name:ident,)*) => {
        mod redis {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Kind::Redis).await;
            })*
        }

        mod nats {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                super::$name(super::Kind::Nats).await;
            })*
        }
    };
}

mod api;
mod callbacks;
mod faults;
mod jetstream;
mod queue;

use std::time::Instant;

use serde_json::{Value, json};

use super::broker::Broker;
use super::support::{DEADLINE, Server, answer, eventually};

/// A server with a queue.
fn server(broker: &Broker, model: &str, args: &[&str]) -> Server {
    Server::start(model, &[&["--queue-url", &broker.url()], args].concat())
}

/// A worker that is ready.
fn worker(broker: &Broker, model: &str, args: &[&str]) -> Server {
    let worker = Server::worker(
        model,
        &[&["--queue-url", &broker.url(), "--job-lease-seconds", "1"], args].concat(),
        &[],
    );
    worker.line("ready");
    worker
}

/// Posts a job that is accepted; returns its id.
async fn post(server: &Server, job: &Value) -> String {
    let (status, body) =
        answer(server.post("/v2/models/m/jobs").body(job.to_string()).send().await.unwrap()).await;
    assert_eq!(status, 202, "{body}");
    body["id"].as_str().unwrap().to_owned()
}

/// A job for the model `affine`.
fn affine(x: f32) -> Value {
    json!({"data": super::support::affine(&[[x, 1.0]])})
}

/// A job for the model `slow`.
fn slow(rounds: u64) -> Value {
    json!({"data": super::support::slow(rounds)})
}

/// Waits until a job has a status.
async fn until(server: &Server, id: &str, status: &str) -> Value {
    let until = Instant::now() + DEADLINE;
    loop {
        let (code, body) = server.get(&format!("/v2/jobs/{id}")).await;
        if code == 200 && body["status"] == status {
            return body;
        }
        assert!(Instant::now() < until, "job {id} is not {status} but {code} {body}");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

/// Waits until no job is queued or running, and checks the conservation law.
async fn settled(broker: &Broker) {
    eventually("the queue is empty", async || broker.entries() == 0).await;
    broker.conserved();
}
