//! A real nats-server with JetStream on a free port, which can be killed and restarted.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self};
use futures::TryStreamExt as _;
use tempfile::TempDir;

use super::support::{DEADLINE, Process};

/// The stream of the queue `test`.
const STREAM: &str = "slipway__test";

/// A running nats-server, stopped when dropped.
pub(crate) struct Nats {
    process: Process,
    dir: TempDir,
    port: u16,
}

/// The program, built if it does not exist yet.
fn program() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("NATS_SERVER") {
            return path.into();
        }
        let cache = slipway_provision::BuildCache::from_env().unwrap();
        let built = slipway_provision::go_tools::ensure_program(
            &cache,
            &slipway_provision::workspace_root(),
            "nats-server",
        );
        built.expect(
            "cannot build nats-server: install Go, or set NATS_SERVER to one of 2.12 or newer",
        )
    })
}

impl Nats {
    pub(crate) fn start() -> Self {
        Process::on_a_free_port(|port| {
            let mut nats =
                Self { process: Process::default(), dir: tempfile::tempdir().unwrap(), port };
            nats.run().then_some(nats)
        })
    }

    /// Starts the server (again), on the same port and files. Returns `false` when it ended at
    /// once.
    pub(crate) fn run(&mut self) -> bool {
        let mut command = Command::new(program());
        command.args([
            "--addr",
            "127.0.0.1",
            "--port",
            &self.port.to_string(),
            "--jetstream",
            "--store_dir",
        ]);
        let port = self.port;
        self.process
            .start(command.arg(self.dir.path()), || TcpStream::connect(("127.0.0.1", port)).is_ok())
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        self.process.kill();
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    async fn context(&self) -> jetstream::Context {
        jetstream::new(async_nats::connect(self.url()).await.unwrap())
    }

    async fn stream(&self) -> Option<Stream> {
        self.context().await.get_stream(STREAM).await.ok()
    }

    /// The number of the last message of the queue `test`.
    pub(crate) async fn last_sequence(&self) -> u64 {
        self.stream().await.unwrap().cached_info().state.last_sequence
    }

    /// All matching subjects of the queue `test`, without their prefix.
    pub(crate) async fn subjects(&self, filter: &str) -> Vec<String> {
        let Some(stream) = self.stream().await else { return Vec::new() };
        let all = stream.info_with_subjects(format!("{STREAM}.{filter}")).await.unwrap();
        let all: Vec<(String, usize)> = all.try_collect().await.unwrap();
        all.into_iter().map(|(subject, _)| subject).collect()
    }

    /// The content of a subject as text, and its lifetime as it was written.
    pub(crate) async fn read(&self, subject: &str) -> (String, Option<String>) {
        let stream = self.stream().await.unwrap();
        let message = stream.get_last_raw_message_by_subject(subject).await.unwrap();
        let ttl = message.headers.get("Nats-TTL").map(|v| v.as_str().to_owned());
        (String::from_utf8(message.payload.to_vec()).unwrap(), ttl)
    }

    /// A counter of the queue `test`.
    pub(crate) async fn total(&self, name: &str) -> i64 {
        let mut sum = 0;
        for subject in self.subjects("count.*").await {
            let counts: std::collections::BTreeMap<String, i64> =
                serde_json::from_str(&self.read(&subject).await.0).unwrap();
            sum += counts.get(name).copied().unwrap_or(0);
        }
        sum
    }

    /// Writes an entry as an external producer does.
    pub(crate) async fn write(&self, queue: &str, priority: &str, id: &str, payload: &str) {
        let subject = format!("slipway__{queue}.work.{priority}.{id}");
        // The server creates the stream asynchronously.
        let until = Instant::now() + DEADLINE;
        let context = self.context().await;
        loop {
            let sent = context.publish(subject.clone(), payload.to_owned().into()).await.unwrap();
            match sent.await {
                Ok(_) => return,
                Err(error) => assert!(Instant::now() < until, "cannot write an entry: {error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the server, and starts it again without its files.
    pub(crate) fn forget(&mut self) {
        self.kill();
        self.dir = tempfile::tempdir().unwrap();
        assert!(self.run());
    }
}
