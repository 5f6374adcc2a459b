use slipway_judge::evidence::{EvidenceQuery, GateQueries, GateReading};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::time::timeout;

use super::*;
use crate::args::PrometheusArgs;
use crate::reader::MAX_PER_NAMESPACE;

const DEADLINE: Duration = Duration::from_secs(10);

/// Answers one request with `body`; returns the request's body.
async fn answer(listener: &TcpListener, head: &str, body: &str) -> String {
    let (mut socket, _) =
        timeout(DEADLINE, listener.accept()).await.expect("a query in time").unwrap();
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    let whole = |request: &[u8]| {
        let text = String::from_utf8_lossy(request).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head
            .lines()
            .find_map(|l| l.to_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok());
        (body.len() >= length.unwrap_or(0)).then(|| body.to_owned())
    };
    let asked = loop {
        let read = socket.read(&mut buffer).await.unwrap();
        request.extend_from_slice(&buffer[..read]);
        if let Some(body) = whole(&request) {
            break body;
        }
    };
    let text = format!(
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(text.as_bytes()).await.unwrap();
    asked
}

fn request(generation: i64) -> EvidenceRequest {
    EvidenceRequest {
        generation,
        // Old enough that the first reading is due at once.
        since: Timestamp::now() - Duration::from_secs(100),
        interval_seconds: 1,
        gates: vec![GateQueries {
            gate: "g".into(),
            queries: EvidenceQuery::Value("up[{{window}}]".into()),
        }],
    }
}

async fn world()
-> (TcpListener, EvidencePoller, UnboundedReceiver<ReconcileTrigger>, ReconcileTrigger) {
    slipway_chassis::tls::install_provider();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (triggers, triggered) = unbounded_channel();
    let args = PrometheusArgs { prometheus_url: Some(url), ..PrometheusArgs::default() };
    let connection = PrometheusConnection::open(&args).unwrap();
    let poller =
        EvidencePoller::new(connection, triggers, Arc::default(), CancellationToken::new());
    (listener, poller, triggered, ReconcileTrigger::new("m").within("ns"))
}

const ONE: &str = r#"{"status":"success","data":{"resultType":"scalar","result":[1,"0.5"]}}"#;

#[tokio::test]
async fn a_request_is_polled_until_it_is_withdrawn() {
    let (listener, poller, mut triggered, object) = world().await;
    poller.set_request("u", &object, Some(&request(3)));
    let asked = answer(&listener, "200 OK", ONE).await;
    assert!(
        asked.contains("query=up%7Bnamespace%3D%22ns%22%7D%5B1m40s%5D")
            || asked.contains("query=up%7Bnamespace%3D%22ns%22%7D%5B1m41s%5D"),
        "{asked}"
    );
    timeout(DEADLINE, triggered.recv()).await.unwrap().unwrap();
    let first = poller.evidence("u").unwrap();
    assert_eq!((first.generation, &first.gates["g"]), (3, &GateReading::Value(0.5)));

    answer(&listener, "503 Unavailable", "").await;
    timeout(DEADLINE, triggered.recv()).await.unwrap().unwrap();
    let second = poller.evidence("u").unwrap();
    assert!(second.serial > first.serial);
    assert_eq!(second.gates["g"], GateReading::ProviderDown("HTTP 503".into()));

    poller.set_request("u", &object, None);
    assert_eq!(poller.evidence("u"), None);
    timeout(DEADLINE, poller.tasks_ended()).await.expect("nothing polls any more");
}

#[tokio::test]
async fn a_namespace_with_slow_queries_holds_up_no_other() {
    let (listener, poller, mut triggered, _) = world().await;
    // The first two get no answer, and the third one waits behind them.
    for model in 0..3 {
        let object = ReconcileTrigger::new(&format!("m{model}")).within("slow");
        poller.set_request(&format!("slow-{model}"), &object, Some(&request(1)));
    }
    let mut held = Vec::new();
    for _ in 0..MAX_PER_NAMESPACE {
        held.push(timeout(DEADLINE, listener.accept()).await.expect("a query in time").unwrap());
    }
    let other = ReconcileTrigger::new("m").within("other");
    poller.set_request("other", &other, Some(&request(1)));
    answer(&listener, "200 OK", ONE).await;
    let told = timeout(DEADLINE, triggered.recv()).await.unwrap().unwrap();
    assert_eq!(told.namespace.as_deref(), Some("other"));
    drop(held);
}

#[tokio::test]
async fn evidence_of_another_generation_is_dropped() {
    let (listener, poller, mut triggered, object) = world().await;
    poller.set_request("u", &object, Some(&request(3)));
    answer(&listener, "200 OK", ONE).await;
    timeout(DEADLINE, triggered.recv()).await.unwrap().unwrap();
    poller.set_request("u", &object, Some(&request(4)));
    assert_eq!(poller.evidence("u"), None);
    timeout(DEADLINE, poller.close()).await.unwrap();
}

#[tokio::test]
async fn no_prometheus_is_said_to_people() {
    let (triggers, mut triggered) = unbounded_channel();
    let poller = EvidencePoller::new(None, triggers, Arc::default(), CancellationToken::new());
    poller.set_request("u", &ReconcileTrigger::new("m").within("ns"), Some(&request(1)));
    timeout(DEADLINE, triggered.recv()).await.unwrap().unwrap();
    let reading = poller.evidence("u").unwrap().gates["g"].clone();
    assert_eq!(
        reading,
        GateReading::ProviderDown("the operator runs without --prometheus-url".into())
    );
    timeout(DEADLINE, poller.close()).await.unwrap();
}

impl EvidencePoller {
    async fn tasks_ended(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
