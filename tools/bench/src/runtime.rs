//! Measures model servers side by side.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::load::{self, BenchRequest, BenchResponse};
use crate::measure::measure_server;
use crate::model::{self, BenchModel};
use crate::peers::PeerServer;
use crate::process::ServerProcess;
use crate::report::{BenchResults, ResultCell};
use crate::wire::WireEncoding;
use crate::{BenchOptions, raw};

/// How long a server may take to answer its first request.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Measures all selected servers and stores the results.
pub(crate) fn run_runtime_bench(options: &BenchOptions) -> anyhow::Result<()> {
    options.make_dirs()?;
    let library = onnxruntime_library()?;
    let mut models = model::ensure_models(&options.dir, &options.models)?;
    for model in &mut models {
        model.probabilities = raw::reference_output(&library, model)?;
    }
    let mut results = BenchResults::read(&options.dir)?;
    for round in 0..options.rounds {
        for model in &models {
            if options.is_selected("raw") {
                let raw = raw::measure_raw(&library, model, options.server_core, options.seconds)?;
                results.add(ResultCell::from_raw(&model.name, raw));
            }
            for peer in PeerServer::ALL.into_iter().filter(|peer| options.is_selected(peer.name()))
            {
                eprintln!(
                    "round {} of {}: {} with {}",
                    round + 1,
                    options.rounds,
                    peer.name(),
                    model.name
                );
                match measure_peer(options, &library, model, peer) {
                    Ok(cells) => cells.into_iter().for_each(|cell| results.add(cell)),
                    // A server that does not run here is left out, with the reason in the log; the
                    // others are still measured.
                    Err(error) => eprintln!("  left out: {error:#}"),
                }
            }
            results.write(&options.dir)?;
        }
    }
    Ok(())
}

pub(crate) fn onnxruntime_library() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        let path = PathBuf::from(path);
        return std::fs::canonicalize(&path).with_context(|| path.display().to_string());
    }
    let root = slipway_provision::workspace_root();
    Ok(slipway_provision::libraries::ensure_onnx_runtime(
        &slipway_provision::BuildCache::from_env()?,
        &root,
    )?)
}

fn measure_peer(
    options: &BenchOptions,
    library: &Path,
    model: &BenchModel,
    peer: PeerServer,
) -> anyhow::Result<Vec<ResultCell>> {
    let (server, port, ready) = start_peer(options, library, model, peer)?;
    let mut cells = Vec::new();
    for wire in WireEncoding::ALL.into_iter().filter(|wire| peer.supports(*wire)) {
        match measure_wire(options, &server, &peer.build_request(model, port, wire), model, wire) {
            Ok(cell) => cells.push(ResultCell {
                server: peer.name().into(),
                ready_ms: ready.as_secs_f64() * 1e3,
                ..cell
            }),
            Err(error) => eprintln!("  left out: {} over {}: {error:#}", peer.name(), wire.name()),
        }
    }
    Ok(cells)
}

fn measure_wire(
    options: &BenchOptions,
    server: &ServerProcess,
    call: &BenchRequest,
    model: &BenchModel,
    wire: WireEncoding,
) -> anyhow::Result<ResultCell> {
    check_response(&load::send_once(call)?, model, wire)?;
    let cell = measure_server(options, server, call, f64::INFINITY)?;
    Ok(ResultCell { model: model.name.clone(), wire: wire.name().into(), ..cell })
}

/// Starts a server: returns its first port, and the time until its first answer.
pub(crate) fn start_peer(
    options: &BenchOptions,
    library: &Path,
    model: &BenchModel,
    peer: PeerServer,
) -> anyhow::Result<(ServerProcess, u16, Duration)> {
    let port = free_ports()?;
    let mut command = peer.command(&options.dir, library, model, port)?;
    let log = options.dir.join("logs").join(format!("{}-{}.log", peer.name(), model.name));
    let begun = Instant::now();
    let mut server = ServerProcess::start(&mut command, options.server_core, &log)?;
    let call = peer.build_request(model, port, WireEncoding::Json);
    server.wait_until(START_TIMEOUT, Duration::from_millis(5), || Ok(load::is_answered(&call)))?;
    Ok((server, port, begun.elapsed()))
}

/// All servers must give the same answer before they are measured.
fn check_response(
    answer: &BenchResponse,
    model: &BenchModel,
    wire: WireEncoding,
) -> anyhow::Result<()> {
    ensure!(
        answer.status.is_success(),
        "{}: {}",
        answer.status,
        String::from_utf8_lossy(&answer.body)
    );
    let found = match wire {
        WireEncoding::Json => json_values(&answer.body)?,
        WireEncoding::Binary | WireEncoding::Grpc => {
            ensure!(
                wire != WireEncoding::Grpc || answer.grpc_status == Some(0),
                "grpc-status {:?} {:?}",
                answer.grpc_status,
                answer.headers
            );
            ensure!(
                contains_floats(&answer.body, &model.probabilities),
                "other values than ONNX Runtime's"
            );
            return Ok(());
        }
    };
    let same = |values: &Vec<f64>| {
        values.len() == model.probabilities.len()
            && values
                .iter()
                .zip(&model.probabilities)
                .all(|(got, want)| (got - f64::from(*want)).abs() < 1e-4)
    };
    ensure!(found.iter().any(same), "other values than ONNX Runtime's: {found:?}");
    Ok(())
}

fn json_values(body: &[u8]) -> anyhow::Result<Vec<Vec<f64>>> {
    let value: Value = serde_json::from_slice(body)?;
    let outputs = value["outputs"].as_array().context("no outputs")?;
    Ok(outputs
        .iter()
        .filter_map(|it| it["data"].as_array())
        .map(|all| all.iter().filter_map(Value::as_f64).collect())
        .collect())
}

/// Whether the bytes contain the floats.
fn contains_floats(body: &[u8], values: &[f32]) -> bool {
    body.windows(values.len() * 4).any(|window| {
        window.chunks_exact(4).zip(values).all(|(bytes, want)| {
            let got = <[u8; 4]>::try_from(bytes).map_or(f32::NAN, f32::from_le_bytes);
            (got - want).abs() < 1e-4
        })
    })
}

/// Three consecutive ports that are free now.
pub(crate) fn free_ports() -> anyhow::Result<u16> {
    use std::net::TcpListener;
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0")?;
        let port = first.local_addr()?.port();
        let next =
            |more: u16| port.checked_add(more).map(|port| TcpListener::bind(("127.0.0.1", port)));
        if matches!((next(1), next(2)), (Some(Ok(_)), Some(Ok(_)))) {
            return Ok(port);
        }
    }
    bail!("no three free ports in a row")
}
