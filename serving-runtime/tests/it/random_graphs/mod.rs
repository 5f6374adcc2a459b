//! Random graphs: an answer is the same alone and in a batch, whatever path it took, and rows that
//! are independent do run together.
//!
//! `SLIPWAY_RANDOM_GRAPHS=500` runs that many graphs, `SLIPWAY_RANDOM_GRAPHS_FROM=7000` starts at
//! that seed.

mod encode;
mod exchange;
mod generate;

use std::path::{Path, PathBuf};

use futures::future::join_all;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::json;

use self::exchange::{Answer, Request, differ};
use self::generate::{Random, generate};
use super::broker::{Broker, Kind};
use super::support::{Server, answer, eventually};

/// Requests to each graph, of one to eight rows.
const REQUESTS: usize = 24;

fn seeds(default: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let from = number("SLIPWAY_RANDOM_GRAPHS_FROM").unwrap_or(0);
    from..from + number("SLIPWAY_RANDOM_GRAPHS").unwrap_or(default)
}

/// A model `Y = X W` for rows of two, whose weights are in the file `location` next to it; returns
/// the model and the weights.
pub(crate) fn with_weights_beside(location: &str, weights: [f32; 4]) -> (Vec<u8>, Vec<u8>) {
    use self::encode::{Constant, Graph, Kind, Node, Port};
    let port = |name: &str| Port { name: name.into(), kind: Kind::F32, trailing: vec![2] };
    let bytes: Vec<u8> = weights.iter().flat_map(|weight| weight.to_le_bytes()).collect();
    let external = Some(location.to_owned());
    let constant = Constant {
        name: "W".into(),
        kind: Kind::F32,
        shape: vec![2, 2],
        bytes: bytes.clone(),
        external,
    };
    let inputs = vec!["X".to_owned(), "W".to_owned()];
    let node = Node { operator: "MatMul", inputs, outputs: vec!["Y".into()], attributes: vec![] };
    let graph = Graph {
        inputs: vec![port("X")],
        outputs: vec![port("Y")],
        constants: vec![constant],
        nodes: vec![node],
    };
    (graph.encode(), bytes)
}

/// A graph in a file, and requests for it.
struct Case {
    seed: u64,
    random: Random,
    dir: tempfile::TempDir,
    requests: Vec<Request>,
}

impl Case {
    fn new(seed: u64) -> Self {
        let random = generate(seed);
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("graph.onnx"), random.graph.encode()).unwrap();
        let mut rng = StdRng::seed_from_u64(seed ^ 0x5eed);
        let requests = (0..REQUESTS)
            .map(|n| Request::new(&random.graph, [1, 1, 2, 3, 8][n % 5], &mut rng))
            .collect();
        Self { seed, random, dir, requests }
    }

    /// The path without its extension, as helpers take the name of a model.
    fn stem(&self) -> PathBuf {
        self.dir.path().join("graph")
    }

    fn file(&self) -> String {
        self.stem().with_extension("onnx").display().to_string()
    }

    fn start(&self, args: &[&str]) -> Server {
        let server = Server::spawn(&self.file(), &[&["--workers", "1"], args].concat(), &[]);
        server.line("ready");
        server
    }

    fn operators(&self) -> Vec<&'static str> {
        self.random.graph.nodes.iter().map(|node| node.operator).collect()
    }

    async fn each_alone(&self, server: &Server) -> Vec<Answer> {
        let mut answers = Vec::new();
        for request in &self.requests {
            answers.push(request.send(server).await);
        }
        answers
    }

    /// The first answer that differs from the answer of the request alone.
    async fn in_company(&self, server: &Server, alone: &[Answer]) -> Option<String> {
        let together = join_all(self.requests.iter().map(|request| request.send(server))).await;
        alone.iter().zip(&together).find_map(|(alone, together)| differ(alone, together))
    }

    fn assert_same(&self, way: &str, difference: Option<String>) {
        let (seed, operators) = (self.seed, self.operators());
        assert!(
            difference.is_none(),
            "seed {seed}, {way}: {}\n{operators:?}",
            difference.unwrap_or_default()
        );
    }
}

/// Number of runs of the model, and of requests that they answered.
async fn executions(server: &Server) -> (u64, u64) {
    let stats = server.get("/v2/models/m/stats").await.1["model_stats"][0].clone();
    (stats["execution_count"].as_u64().unwrap(), stats["inference_count"].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_same_alone_and_in_company() {
    let (mut apart, mut merged, mut runs, mut rows) = (0, 0, 0, 0);
    for seed in seeds(48) {
        let case = Case::new(seed);
        let server = case.start(&[]);
        // The model's speed is unknown yet, so these requests wait in the queue; the last ones run
        // inline.
        let first = join_all(case.requests.iter().map(|request| request.send(&server))).await;
        let alone = case.each_alone(&server).await;
        case.assert_same(
            "in the queue",
            alone.iter().zip(&first).find_map(|(alone, first)| differ(alone, first)),
        );
        for _ in 0..2 {
            case.assert_same("where it was read", case.in_company(&server, &alone).await);
        }
        let properties = server.get("/v2/models/m").await.1["properties"].clone();
        let together = properties["batching"] == "enabled";
        assert!(
            !(together && case.random.mixes),
            "seed {seed}: merged though it mixes: {:?}",
            case.operators()
        );
        if !case.random.mixes {
            apart += 1;
            merged += u32::from(together);
            if !together {
                eprintln!(
                    "seed {seed} is not merged: {} {:?}",
                    properties["batching_reason"],
                    case.operators()
                );
            }
        }
        if together {
            let (executed, inferred) = executions(&server).await;
            runs += executed;
            rows += inferred;
        }
    }
    // Batching nothing would also pass the comparisons, so the share is checked.
    assert!(merged * 10 >= apart * 9, "{merged} of {apart} graphs that keep rows apart are merged");
    assert!(runs < rows, "{runs} runs for {rows} rows: nothing ran together");
}

/// Shows that the test detects what it is meant to detect.
#[tokio::test(flavor = "multi_thread")]
async fn what_mixes_rows_is_wrong_in_company_when_it_is_merged() {
    let mut noticed = 0;
    let mixing = seeds(u64::MAX / 2).map(Case::new).filter(|case| case.random.mixes).take(8);
    for case in mixing {
        let server = case.start(&["--batching", "enabled"]);
        let alone = case.each_alone(&server).await;
        for _ in 0..3 {
            noticed += u32::from(case.in_company(&server, &alone).await.is_some());
        }
    }
    assert!(noticed >= 8, "only {noticed} of 24 rounds differ");
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_answers_are_those_that_were_given_alone() {
    let (mut kept, mut asked) = (0.0, 0.0);
    for seed in seeds(10) {
        let case = Case::new(seed);
        let plain = case.start(&[]);
        let alone = case.each_alone(&plain).await;
        let server = case.start(&["--result-cache", "--no-cache-bypass"]);
        for way in ["first", "kept", "kept"] {
            case.assert_same(way, case.in_company(&server, &alone).await);
        }
        let hits = "slipway_runtime_cache_requests_total{modeldeployment=\"test\",revision=\"rev1\",cache=\"result\",outcome=\"hit_local\"}";
        kept += server.metric(hits).await;
        asked += 3.0 * REQUESTS as f64;
    }
    // Answers with a NaN are never cached, nor is an answer that arrives while another request with
    // the same key is in progress.
    assert!(kept >= asked / 3.0, "{kept} of {asked} answers were kept ones");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_get_the_answers_that_were_given_alone() {
    let broker = Broker::start(Kind::Redis);
    let in_json = seeds(u64::MAX / 2).map(Case::new).filter(|case| case.requests[0].in_json());
    for (number, case) in in_json.take(6).enumerate() {
        let queue = format!("graph-{number}");
        let options = ["--queue-url", &broker.url(), "--queue-name", &queue];
        let server = case.start(&options);
        let alone = case.each_alone(&server).await;
        let stem = case.stem().display().to_string();
        let worker = Server::worker(&stem, &[&options[..], &["--workers", "1"]].concat(), &[]);
        worker.line("ready");
        let post = async |request: &Request| {
            let body = json!({"data": request.json()}).to_string();
            let (status, body) =
                answer(server.post("/v2/models/m/jobs").body(body).send().await.unwrap()).await;
            assert_eq!(status, 202, "{body}");
            body["id"].as_str().unwrap().to_owned()
        };
        let ids = join_all(case.requests.iter().map(post)).await;
        for ((id, request), alone) in ids.iter().zip(&case.requests).zip(&alone) {
            let path = format!("/v2/jobs/{id}");
            eventually("the job is done", async || {
                server.get(&path).await.1["status"] == "succeeded"
            })
            .await;
            let result = server.get(&path).await.1["result"].clone();
            case.assert_same("as a job", differ(alone, &request.read(&result)));
        }
    }
}

/// Writes the graphs to files for other programs: `SLIPWAY_RANDOM_GRAPHS_INTO=dir cargo test …
/// write_graphs -- --ignored`.
#[test]
#[ignore = "writes files for a look by hand"]
fn write_graphs() {
    let into = std::env::var("SLIPWAY_RANDOM_GRAPHS_INTO").unwrap();
    for seed in seeds(48) {
        std::fs::write(
            Path::new(&into).join(format!("{seed}.onnx")),
            generate(seed).graph.encode(),
        )
        .unwrap();
    }
}
