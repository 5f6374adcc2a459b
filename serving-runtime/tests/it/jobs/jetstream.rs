//! Properties specific to the queue on JetStream.

use async_nats::jetstream::{self, stream};
use futures::future::join_all;
use serde_json::json;
use slipway_runtime_jobs::broker::JobBroker;
use slipway_runtime_queue::job::JobPriority;
use slipway_runtime_queue::queue::{EnqueueOutcome, JobQueue as _, QueueOptions};

use super::super::nats::Nats;
use super::super::support::{DEADLINE, Server, answer, eventually};
use super::affine;

fn server(nats: &Nats, args: &[&str]) -> Server {
    Server::start("affine", &[&["--queue-url", &nats.url()], args].concat())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_message_holds_is_refused_at_the_door() {
    let nats = Nats::start();
    let server = server(&nats, &["--max-job-bytes", "2000000"]);
    let data =
        format!("{{{}\"inputs\": {}}}", " ".repeat(1_100_000), affine(1.0)["data"]["inputs"]);
    let body = format!("{{\"data\": {data}}}");
    let (status, body) =
        answer(server.post("/v2/models/m/jobs").body(body).send().await.unwrap()).await;
    assert!(
        status == 400 && body["error"].as_str().unwrap().contains("max_payload"),
        "{status} {body}"
    );
    assert!(nats.subjects(">").await.iter().all(|subject| !subject.contains(".job.")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_empty_gets_its_stream_again() {
    let mut nats = Nats::start();
    let server = server(&nats, &[]);
    let post = async || {
        server
            .post("/v2/models/m/jobs")
            .body(affine(1.0).to_string())
            .send()
            .await
            .unwrap()
            .status()
    };
    assert_eq!(post().await, 202);
    nats.forget();
    eventually("jobs are taken again", async || post().await == 202).await;
    assert_eq!(nats.subjects("work.*.*").await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_that_rests_holds_up_no_other() {
    let nats = Nats::start();
    let queue = JobBroker::new(&nats.url(), super::queue::options("test".into())).unwrap();
    let job = super::queue::job("one".into(), Some(1), JobPriority::Normal);
    // Polled once, and then not polled while another future is awaited, as in a set of futures:
    // first before the connection exists.
    let mut rested = 0;
    for _ in 0..20 {
        let mut resting = std::pin::pin!(queue.enqueue(&job, u64::MAX));
        let outcome = match futures::poll!(&mut resting) {
            // On a machine under load it may have finished before the first poll.
            std::task::Poll::Ready(outcome) => outcome.unwrap(),
            std::task::Poll::Pending => {
                rested += 1;
                let leaving = tokio::time::timeout(DEADLINE, queue.leave("somebody"));
                leaving.await.expect("no other operation gets through").unwrap();
                resting.await.unwrap()
            }
        };
        assert!(
            matches!(outcome, EnqueueOutcome::Accepted | EnqueueOutcome::Duplicate(_)),
            "{outcome:?}"
        );
    }
    assert!(rested > 0, "nothing rested");
}

#[tokio::test(flavor = "multi_thread")]
async fn steps_of_one_time_are_written_together() {
    let nats = Nats::start();
    let options = QueueOptions { max_entries: 1000, ..super::queue::options("test".into()) };
    let queue = JobBroker::new(&nats.url(), options).unwrap();
    let enqueue = async |id: String, key| {
        queue.enqueue(&super::queue::job(id, key, JobPriority::Normal), u64::MAX).await.unwrap()
    };
    // The connection exists now.
    assert_eq!(enqueue("first".into(), None).await, EnqueueOutcome::Accepted);
    let before = nats.last_sequence().await;
    let all = join_all((0..60).map(|n| enqueue(format!("a{n}"), None))).await;
    assert!(all.iter().all(|outcome| *outcome == EnqueueOutcome::Accepted), "{all:?}");
    // Two messages for each job, and one with the counters for each batch.
    let batches = nats.last_sequence().await - before - 120;
    assert!((1..=20).contains(&batches), "{batches} batches for 60 jobs");
    assert_eq!((nats.subjects("work.*.*").await.len(), nats.total("enqueued").await), (61, 61));
    // Conflicting steps do not fail the others: for each key one job is accepted, and all jobs
    // without a key as well.
    let key = |n: u8| n.is_multiple_of(3).then_some(n % 2);
    let all = join_all((0..60).map(|n| enqueue(format!("b{n}"), key(n)))).await;
    let accepted = all.iter().filter(|outcome| **outcome == EnqueueOutcome::Accepted).count();
    let twins =
        all.iter().filter(|outcome| matches!(outcome, EnqueueOutcome::Duplicate(_))).count();
    assert_eq!((accepted, twins), (42, 18), "{all:?}");
    assert_eq!((nats.subjects("work.*.*").await.len(), nats.total("enqueued").await), (103, 103));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_somebody_else_is_left_alone() {
    let nats = Nats::start();
    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let subjects = vec!["slipway__test.>".to_owned()];
    let theirs = stream::Config { name: "slipway__test".into(), subjects, ..Default::default() };
    context.create_stream(theirs).await.unwrap();
    let server = server(&nats, &[]);
    let (status, body) = answer(
        server.post("/v2/models/m/jobs").body(affine(1.0).to_string()).send().await.unwrap(),
    )
    .await;
    assert_eq!(
        (status, body["error"].as_str().unwrap().contains("not available")),
        (503, true),
        "{body}"
    );
    let line = server.line("queue");
    assert!(line["error"].as_str().unwrap().contains("not made by us"), "{line}");
    assert!(nats.subjects(">").await.is_empty());
    assert_eq!(server.infer(&json!(affine(1.0)["data"])).await.0, 200, "predictions need no queue");
}
