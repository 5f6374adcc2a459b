//! Starts the server as a process, and waits for conditions.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// No condition of these tests takes this long on a machine that is merely under load.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

const DRAIN_DELAY: &str = "--drain-delay-seconds";
const BINARY: &str = env!("CARGO_BIN_EXE_slipway-runtime");

/// The server to test: the one that was built with the tests, or another build of it.
fn binary() -> std::ffi::OsString {
    std::env::var_os("SLIPWAY_RUNTIME_BINARY").unwrap_or_else(|| BINARY.into())
}

/// ONNX Runtime's library, fetched if it does not exist yet.
pub(crate) fn onnxruntime() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
            return path.into();
        }
        let cache = slipway_provision::BuildCache::from_env().unwrap();
        slipway_provision::libraries::ensure_onnx_runtime(
            &cache,
            &slipway_provision::workspace_root(),
        )
        .unwrap()
    })
}

/// A committed test model.
pub(crate) fn model(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models").join(format!("{name}.onnx"))
}

/// `sha256:<hex>` of a file.
pub(crate) fn digest(path: &Path) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(sha2::Sha256::digest(std::fs::read(path).unwrap())))
}

/// Runs the program: returns its status, and its output on standard output and error. Dumps and
/// backtraces are requested by the environment and must not appear.
pub(crate) fn run_program(args: &[&str], env: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let termination = concat!(env!("CARGO_TARGET_TMPDIR"), "/command-line-termination");
    let mut command = Command::new(binary());
    command
        .args(args)
        .env_remove("RUST_LOG")
        .env("ORT_DYLIB_PATH", onnxruntime())
        .env("SLIPWAY_TERMINATION_LOG", termination);
    let output = command.envs(env.iter().copied()).env("RUST_BACKTRACE", "1").output().unwrap();
    let [out, err] = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    let dumps = ["stack backtrace", "panicked at", "Error {", "Os {"];
    assert_eq!(
        dumps.iter().find(|dump| out.contains(**dump) || err.contains(**dump)),
        None,
        "{args:?}: {out}{err}"
    );
    (output.status.code(), out, err)
}

/// A client with its own connections.
pub(crate) fn client() -> reqwest::Client {
    slipway_chassis::tls::install_provider();
    reqwest::Client::builder().no_proxy().tls_certs_only([]).timeout(DEADLINE).build().unwrap()
}

/// Waits for a condition.
pub(crate) async fn eventually<F: Future<Output = bool>>(
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let until = Instant::now() + DEADLINE;
    while !condition().await {
        assert!(Instant::now() < until, "not within the deadline: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// An external program that serves on its own port and can be killed; killed when dropped.
#[derive(Default)]
pub(crate) struct Process(Option<Child>);

impl Process {
    /// Finds a free port and calls `run` with it. Another process may take the port first; then the
    /// started program ends, and the next port is tried.
    pub(crate) fn on_a_free_port<T>(run: impl Fn(u16) -> Option<T>) -> T {
        for _ in 0..10 {
            let port =
                std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            if let Some(running) = run(port) {
                return running;
            }
        }
        panic!("it does not start");
    }

    /// Starts it, and waits until it answers. Returns `false` when it ended at once.
    pub(crate) fn start(&mut self, command: &mut Command, answers: impl Fn() -> bool) -> bool {
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut child = child.unwrap_or_else(|e| panic!("cannot run {command:?}: {e}"));
        let until = Instant::now() + DEADLINE;
        loop {
            if child.try_wait().unwrap().is_some() {
                return false;
            }
            if answers() {
                self.0 = Some(child);
                return true;
            }
            assert!(Instant::now() < until, "{command:?} does not answer");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Sends SIGKILL.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.0.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

type Log = Arc<(Mutex<Vec<Value>>, Condvar)>;

pub(crate) struct Server {
    child: Child,
    log: Log,
    pub(crate) dir: TempDir,
    pub(crate) api: String,
    pub(crate) admin: String,
    pub(crate) http: reqwest::Client,
}

impl Server {
    /// Starts a server for a test model and waits until it is ready.
    pub(crate) fn start(name: &str, args: &[&str]) -> Self {
        let server = Self::spawn(&model(name).display().to_string(), args, &[]);
        server.line("ready");
        server
    }

    /// Starts a server, and waits until it listens.
    pub(crate) fn spawn(uri: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut server =
            Self::command(uri, &[&["serve", "--listen", "127.0.0.1:0"], args].concat(), env);
        let listening = server.line("listening");
        server.api = format!("http://{}", listening["api"].as_str().unwrap());
        server.admin = format!("http://{}", listening["admin"].as_str().unwrap());
        server
    }

    /// Starts a worker of jobs without waiting: it may fail to start.
    pub(crate) fn worker(name: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let mut worker =
            Self::command(&model(name).display().to_string(), &[&["worker"], args].concat(), env);
        if let Some(listening) = worker.line_or_end("listening") {
            worker.admin = format!("http://{}", listening["admin"].as_str().unwrap());
        }
        worker
    }

    /// Runs the step before the server: returns whether it succeeded, and its report.
    pub(crate) fn fetch(uri: &str, args: &[&str]) -> (bool, Value) {
        let mut step = Self::command(uri, &[&["fetch"], args].concat(), &[]);
        let ended = step.wait().success();
        let told = std::fs::read_to_string(step.dir.path().join("termination")).unwrap();
        (ended, serde_json::from_str(&told).unwrap())
    }

    fn command(uri: &str, args: &[&str], env: &[(&str, &str)]) -> Self {
        let (command, args) = args.split_first().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(binary())
            .args([command, "--model-name", "m", "--admin-listen", "127.0.0.1:0"])
            .args(["--model-uri", uri])
            .args(if args.contains(&DRAIN_DELAY) { &[][..] } else { &[DRAIN_DELAY, "0"] })
            .args(args)
            .env_remove("RUST_LOG")
            .env("ORT_DYLIB_PATH", onnxruntime())
            .env("SLIPWAY_MODELDEPLOYMENT", "test")
            .env("SLIPWAY_REVISION", "rev1")
            .env("SLIPWAY_CACHE_DIR", dir.path().join("models"))
            .env("SLIPWAY_TERMINATION_LOG", dir.path().join("termination"))
            .envs(env.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Log::default();
        let (sink, out) = (Arc::clone(&log), BufReader::new(child.stdout.take().unwrap()));
        std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                sink.0
                    .lock()
                    .unwrap()
                    .push(serde_json::from_str(&line).unwrap_or(Value::String(line)));
                sink.1.notify_all();
            }
            // Marks the end of the log, so that a test that waits for a line fails at once.
            sink.0.lock().unwrap().push(Value::Null);
            sink.1.notify_all();
        });
        Self { child, log, dir, api: String::new(), admin: String::new(), http: client() }
    }

    /// Waits for a line of the log with that message.
    pub(crate) fn line(&self, message: &str) -> Value {
        let found = self.line_or_end(message);
        found.unwrap_or_else(|| panic!("no line {message:?} in {:#?}", self.log.0.lock().unwrap()))
    }

    /// The same; `None` when the log ends without the line.
    fn line_or_end(&self, message: &str) -> Option<Value> {
        let until = Instant::now() + DEADLINE;
        let mut lines = self.log.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|l| l["message"] == message) {
                return Some(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || lines.contains(&Value::Null) {
                return None;
            }
            lines = self.log.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// The largest resident memory of the server so far, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// The current resident memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        self.status("VmRSS:")
    }

    fn status(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.split_whitespace().next().unwrap().parse::<u64>().unwrap() * 1024
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(
            Command::new("kill")
                .args(["-s", name, &self.child.id().to_string()])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits for the end of the process.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the server does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits for a failed start and reads its reason.
    pub(crate) fn failure(&mut self) -> Value {
        assert_eq!(self.wait().code(), Some(1));
        serde_json::from_str(&std::fs::read_to_string(self.dir.path().join("termination")).unwrap())
            .unwrap()
    }

    /// Sends a GET; the body as JSON if it is valid.
    pub(crate) async fn get(&self, path: &str) -> (u16, Value) {
        answer(self.http.get(format!("{}{path}", self.api)).send().await.unwrap()).await
    }

    /// Sends a POST to the model.
    pub(crate) async fn infer(&self, body: &Value) -> (u16, Value) {
        answer(self.post("/v2/models/m/infer").body(body.to_string()).send().await.unwrap()).await
    }

    /// A POST request that the caller completes.
    pub(crate) fn post(&self, path: &str) -> reqwest::RequestBuilder {
        self.http.post(format!("{}{path}", self.api))
    }

    /// Status of a probe.
    pub(crate) async fn probe(&self, path: &str) -> u16 {
        self.http.get(format!("{}{path}", self.admin)).send().await.unwrap().status().as_u16()
    }

    /// The sum of all series whose name and labels start with `prefix`.
    pub(crate) async fn metric(&self, prefix: &str) -> f64 {
        let text = self
            .http
            .get(format!("{}/metrics", self.admin))
            .send()
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        let value = |line: &str| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap();
        text.lines().filter(|l| l.starts_with(prefix)).map(value).sum()
    }

    /// Number of requests that ended with a status.
    pub(crate) async fn code(&self, code: u16) -> f64 {
        let series = format!(
            "slipway_runtime_requests_total{{modeldeployment=\"test\",revision=\"rev1\",code=\"{code}\"}}"
        );
        self.metric(&series).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status and body of an answer.
pub(crate) async fn answer(response: reqwest::Response) -> (u16, Value) {
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// A request for the model `affine`.
pub(crate) fn affine(rows: &[[f32; 2]]) -> Value {
    json!({"inputs": [{"name": "x", "shape": [rows.len(), 2], "datatype": "FP32", "data": rows}], "outputs": [{"name": "y"}]})
}

/// A request for the model `slow`.
pub(crate) fn slow(rounds: u64) -> Value {
    json!({"inputs": [{"name": "rounds", "shape": [1], "datatype": "INT64", "data": [rounds]}]})
}
