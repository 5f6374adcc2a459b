//! The measured model servers, and how each is started at the best setting that its documentation
//! names.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use anyhow::Context as _;
use http::HeaderValue;
use slipway_contracts::grpc::TIMEOUT_HEADER;

use crate::load::BenchRequest;
use crate::model::BenchModel;
use crate::variation::BodyVariation;
use crate::venv;
use crate::wire::WireEncoding;

/// A model server. Caches are off unless the name says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PeerServer {
    Slipway,
    SlipwayNoBatching,
    /// Every request is cached in the process's memory: measures the cost of a hit.
    SlipwayCacheHit,
    /// No request is cached: measures the cost of a cache that never helps.
    SlipwayCacheMiss,
    /// Every request is cached only in Redis, whose CPU time counts too.
    SlipwayCacheRedis,
    FastApi,
    Triton,
    MlServer,
    KServe,
    LitServe,
    BentoMl,
}

const ORT: &str = "onnxruntime==1.32.0";
const NUMPY: &str = "numpy==2.4.6";
/// Number of different inputs of a measurement without repetitions, and of one whose inputs repeat
/// soon enough to be cached after its warm-up.
const UNIQUE_INPUTS: u32 = 1_500_000;
const REPEATED_INPUTS: u32 = 256;

impl PeerServer {
    pub(crate) const ALL: [Self; 11] = [
        Self::Slipway,
        Self::SlipwayNoBatching,
        Self::SlipwayCacheHit,
        Self::SlipwayCacheMiss,
        Self::SlipwayCacheRedis,
        Self::FastApi,
        Self::Triton,
        Self::MlServer,
        Self::KServe,
        Self::LitServe,
        Self::BentoMl,
    ];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Slipway => "slipway",
            Self::SlipwayNoBatching => "slipway-no-batching",
            Self::SlipwayCacheHit => "slipway-cache-hit",
            Self::SlipwayCacheMiss => "slipway-cache-miss",
            Self::SlipwayCacheRedis => "slipway-cache-redis",
            Self::FastApi => "fastapi",
            Self::Triton => "triton-python-backend",
            Self::MlServer => "mlserver",
            Self::KServe => "kserve",
            Self::LitServe => "litserve",
            Self::BentoMl => "bentoml",
        }
    }

    /// Whether it is Slipway's server, with any options.
    const fn is_ours(self) -> bool {
        use PeerServer::{
            Slipway, SlipwayCacheHit, SlipwayCacheMiss, SlipwayCacheRedis, SlipwayNoBatching,
        };
        matches!(
            self,
            Slipway | SlipwayNoBatching | SlipwayCacheHit | SlipwayCacheMiss | SlipwayCacheRedis
        )
    }

    /// Whether the server supports this encoding.
    pub(crate) const fn supports(self, wire: WireEncoding) -> bool {
        match wire {
            WireEncoding::Json => true,
            WireEncoding::Binary => self.is_ours() || matches!(self, Self::Triton),
            WireEncoding::Grpc => self.is_ours() || matches!(self, Self::Triton | Self::MlServer),
        }
    }

    /// The server's gRPC port when its first port is `port`.
    pub(crate) const fn grpc_port(self, port: u16) -> Option<u16> {
        match self {
            _ if self.is_ours() => Some(port),
            Self::Triton | Self::MlServer => Some(port + 1),
            _ => None,
        }
    }

    fn requirements(self) -> &'static [&'static str] {
        match self {
            Self::FastApi => &["fastapi==0.165.0", "uvicorn[standard]", ORT, NUMPY],
            // The interpreter in the wheel needs numpy 1.
            Self::Triton => &["nvidia-pytriton==0.7.0", "onnxruntime==1.23.2", "numpy<2"],
            Self::MlServer => &["mlserver==1.7.1", ORT],
            Self::KServe => &["kserve==0.21.0", ORT],
            Self::LitServe => &["litserve==0.2.19", ORT, NUMPY],
            Self::BentoMl => &["bentoml==1.4.40", ORT, NUMPY],
            _ => &[],
        }
    }

    /// Path of inference requests.
    fn infer_path(self) -> &'static str {
        if self == Self::BentoMl { "/infer" } else { "/v2/models/m/infer" }
    }

    /// The request for the row of `model`.
    pub(crate) fn build_request(
        self,
        model: &BenchModel,
        port: u16,
        wire: WireEncoding,
    ) -> BenchRequest {
        let port = self.grpc_port(port).filter(|_| wire == WireEncoding::Grpc).unwrap_or(port);
        let mut call = model.row.build_request(port, self.infer_path(), "m", wire);
        if self.is_ours() && wire == WireEncoding::Grpc {
            call.headers.insert(TIMEOUT_HEADER, HeaderValue::from_static("10S"));
        }
        call.variation = match self {
            Self::SlipwayCacheMiss => {
                Some(Arc::new(BodyVariation::new(&call.body, &model.row, wire, UNIQUE_INPUTS)))
            }
            Self::SlipwayCacheRedis => {
                Some(Arc::new(BodyVariation::new(&call.body, &model.row, wire, REPEATED_INPUTS)))
            }
            _ => None,
        };
        call
    }

    /// The command that serves `model` on `port` (and `port + 1`, `port + 2`).
    pub(crate) fn command(
        self,
        dir: &Path,
        library: &Path,
        model: &BenchModel,
        port: u16,
    ) -> anyhow::Result<Command> {
        if self.is_ours() {
            return slipway_command(self, library, model, port);
        }
        let python = if self == Self::Triton { "/usr/bin/python3" } else { "python3" };
        let venv = venv::ensure_venv(self.name(), python, self.requirements())?;
        let peers = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers");
        let bin = |name: &str| Command::new(venv.join("bin").join(name));
        let mut command = match self {
            Self::FastApi => {
                let mut it = bin("uvicorn");
                it.args([
                    "fastapi_server:app",
                    "--no-access-log",
                    "--log-level",
                    "error",
                    "--port",
                    &port.to_string(),
                ]);
                it
            }
            Self::MlServer => {
                let mut it = bin("mlserver");
                it.arg("start").arg(write_mlserver_settings(dir, port)?);
                it
            }
            Self::KServe => script_command(bin("python"), "kserve_server.py", port),
            Self::LitServe => script_command(bin("python"), "litserve_server.py", port),
            Self::BentoMl => {
                let mut it = bin("bentoml");
                it.args([
                    "serve",
                    "bentoml_service:Onnx",
                    "--host",
                    "127.0.0.1",
                    "--port",
                    &port.to_string(),
                ]);
                it
            }
            _ => triton_command(dir, &venv, &peers, model, port)?,
        };
        command.current_dir(&peers).env("PYTHONPATH", &peers).env("BENCH_MODEL", &model.path);
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("BENTOML_DO_NOT_TRACK", "True");
        Ok(command)
    }
}

fn script_command(mut python: Command, file: &str, port: u16) -> Command {
    python.args([file, &port.to_string()]);
    python
}

fn slipway_command(
    peer: PeerServer,
    library: &Path,
    model: &BenchModel,
    port: u16,
) -> anyhow::Result<Command> {
    let mut command = runtime_command("serve", library, model, port)?;
    command.arg(format!("--listen=127.0.0.1:{port}"));
    match peer {
        PeerServer::SlipwayNoBatching => {
            command.arg("--batching=disabled");
        }
        PeerServer::SlipwayCacheHit | PeerServer::SlipwayCacheMiss => {
            command.arg("--result-cache");
        }
        PeerServer::SlipwayCacheRedis => {
            command.args(["--result-cache", "--result-cache-bytes", "0"]);
            command.arg(format!("--redis-url=redis://127.0.0.1:{}", port + 2));
            return Ok(with_own_redis(&command, port + 2));
        }
        _ => {}
    }
    Ok(command)
}

/// Slipway's model server with the model, on one core; its admin port is `port + 1`.
pub(crate) fn runtime_command(
    what: &str,
    library: &Path,
    model: &BenchModel,
    port: u16,
) -> anyhow::Result<Command> {
    let program = Path::new("target/release/slipway-runtime");
    let program = std::fs::canonicalize(program)
        .context("cargo build --release --package slipway-runtime")?;
    let mut command = Command::new(program);
    command.args([
        what,
        "--model-name",
        "m",
        "--drain-delay-seconds",
        "0",
        "--workers",
        "1",
        "--io-threads",
        "1",
    ]);
    command
        .arg("--model-uri")
        .arg(&model.path)
        .arg(format!("--admin-listen=127.0.0.1:{}", port + 1));
    command
        .env("ORT_DYLIB_PATH", library)
        .env("SLIPWAY_TERMINATION_LOG", "/dev/null")
        .env("RUST_LOG", "warn");
    Ok(command)
}

/// Runs `command` together with a Redis of its own: one process tree, so that the time of both
/// counts.
fn with_own_redis(command: &Command, port: u16) -> Command {
    let redis = format!(
        "redis-server --port {port} --bind 127.0.0.1 --save '' --appendonly no --loglevel warning"
    );
    let mut both = Command::new("sh");
    both.args(["-c", &format!("{redis} & exec \"$0\" \"$@\"")])
        .arg(command.get_program())
        .args(command.get_args());
    both.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    both
}

fn write_mlserver_settings(dir: &Path, port: u16) -> anyhow::Result<PathBuf> {
    let folder = std::path::absolute(dir.join("mlserver"))?;
    std::fs::create_dir_all(&folder)?;
    let settings = serde_json::json!({
        "http_port": port, "grpc_port": port + 1, "metrics_port": port + 2, "parallel_workers": 0, "debug": false,
        "access_logging": false, "use_structured_logging": false,
    });
    std::fs::write(folder.join("settings.json"), settings.to_string())?;
    let model = serde_json::json!({"name": "m", "implementation": "mlserver_runtime.OnnxModel"});
    std::fs::write(folder.join("model-settings.json"), model.to_string())?;
    Ok(folder)
}

/// Triton from the wheel of pytriton: the server with its Python backend, the only backend that the
/// wheel contains.
fn triton_command(
    dir: &Path,
    venv: &Path,
    peers: &Path,
    model: &BenchModel,
    port: u16,
) -> anyhow::Result<Command> {
    let packages =
        find_directory(&venv.join("lib"), "site-packages").context("no site-packages")?;
    let server = packages.join("pytriton/tritonserver");
    let stub = server.join("python_backend_stubs/3.11/triton_python_backend_stub");
    let backend = server.join("backends/python");
    if stub.is_file() && !backend.join("triton_python_backend_stub").is_file() {
        std::fs::copy(&stub, backend.join("triton_python_backend_stub"))?;
    }
    let repository = std::path::absolute(dir.join("triton").join(&model.name))?;
    std::fs::create_dir_all(repository.join("m/1"))?;
    std::fs::copy(peers.join("triton/model.py"), repository.join("m/1/model.py"))?;
    let dims =
        |shape: &[i64]| shape.iter().skip(1).map(i64::to_string).collect::<Vec<_>>().join(", ");
    let config = format!(
        "name: \"m\"\nbackend: \"python\"\nmax_batch_size: 32\ninput [{{ name: \"{}\" data_type: TYPE_FP32 dims: [ {} ] }}]\n\
         output [{{ name: \"probabilities\" data_type: TYPE_FP32 dims: [ {} ] }}]\ndynamic_batching {{ }}\n\
         instance_group [{{ count: 1 kind: KIND_CPU }}]\n",
        model.row.input,
        dims(&model.row.shape),
        model.probabilities.len(),
    );
    std::fs::write(repository.join("m/config.pbtxt"), config)?;
    let mut command = Command::new(server.join("bin/tritonserver"));
    command.arg(format!("--model-repository={}", repository.display()));
    command.arg(format!("--backend-directory={}", server.join("backends").display()));
    command.args([
        format!("--http-port={port}"),
        format!("--grpc-port={}", port + 1),
        format!("--metrics-port={}", port + 2),
    ]);
    command.args([
        "--http-address=127.0.0.1",
        "--grpc-address=127.0.0.1",
        "--log-verbose=0",
        "--log-info=false",
    ]);
    let libraries = [packages.join("nvidia_pytriton.libs"), server.join("external_libs")];
    let libraries: Vec<String> = libraries.iter().map(|path| path.display().to_string()).collect();
    command.env("LD_LIBRARY_PATH", libraries.join(":")).env("VIRTUAL_ENV", venv);
    command.env(
        "PATH",
        format!("{}:{}", venv.join("bin").display(), std::env::var("PATH").unwrap_or_default()),
    );
    Ok(command)
}

fn find_directory(dir: &Path, name: &str) -> Option<PathBuf> {
    let inner = std::fs::read_dir(dir).ok()?.flatten().map(|entry| entry.path().join(name));
    inner.into_iter().find(|path| path.is_dir())
}
