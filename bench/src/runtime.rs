//! Model servers, side by side.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::load::{self, Answer, Call};
use crate::measure::measure;
use crate::model::{self, Model};
use crate::peers::Peer;
use crate::process::Server;
use crate::report::{Cell, Results};
use crate::wire::Wire;
use crate::{Options, raw};

/// How long a server may take to answer its first request.
const START: Duration = Duration::from_secs(90);

/// Measures everything that was asked for, and keeps what comes out.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    options.make_dirs()?;
    let library = onnxruntime()?;
    let mut models = model::all(&options.dir, &options.models)?;
    for model in &mut models {
        model.probabilities = raw::reference(&library, model)?;
    }
    let mut results = Results::read(&options.dir)?;
    for round in 0..options.rounds {
        for model in &models {
            if options.wants("raw") {
                let raw = raw::measure(&library, model, options.server_core, options.seconds)?;
                results.add(Cell::raw(&model.name, raw));
            }
            for peer in Peer::ALL.into_iter().filter(|peer| options.wants(peer.name())) {
                eprintln!("round {} of {}: {} with {}", round + 1, options.rounds, peer.name(), model.name);
                match serve(options, &library, model, peer) {
                    Ok(cells) => cells.into_iter().for_each(|cell| results.add(cell)),
                    // One that does not run here is left out, with the reason in the log, and does not spoil the rest.
                    Err(error) => eprintln!("  left out: {error:#}"),
                }
            }
            results.write(&options.dir)?;
        }
    }
    Ok(())
}

pub(crate) fn onnxruntime() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        let path = PathBuf::from(path);
        return std::fs::canonicalize(&path).with_context(|| path.display().to_string());
    }
    let root = slipway_provision::workspace_root();
    Ok(slipway_provision::libraries::onnx_runtime(&slipway_provision::Cache::from_env()?, &root)?)
}

fn serve(options: &Options, library: &Path, model: &Model, peer: Peer) -> anyhow::Result<Vec<Cell>> {
    let (server, port, ready) = start(options, library, model, peer)?;
    let mut cells = Vec::new();
    for wire in Wire::ALL.into_iter().filter(|wire| peer.speaks(*wire)) {
        match measured(options, &server, &peer.call(model, port, wire), model, wire) {
            Ok(cell) => cells.push(Cell { server: peer.name().into(), ready_ms: ready.as_secs_f64() * 1e3, ..cell }),
            Err(error) => eprintln!("  left out: {} over {}: {error:#}", peer.name(), wire.name()),
        }
    }
    Ok(cells)
}

fn measured(options: &Options, server: &Server, call: &Call, model: &Model, wire: Wire) -> anyhow::Result<Cell> {
    check(&load::once(call)?, model, wire)?;
    let cell = measure(options, server, call, f64::INFINITY)?;
    Ok(Cell { model: model.name.clone(), wire: wire.name().into(), ..cell })
}

/// Starts a server: its first port, and how long it took until its first answer.
pub(crate) fn start(
    options: &Options,
    library: &Path,
    model: &Model,
    peer: Peer,
) -> anyhow::Result<(Server, u16, Duration)> {
    let port = free_ports()?;
    let mut command = peer.command(&options.dir, library, model, port)?;
    let log = options.dir.join("logs").join(format!("{}-{}.log", peer.name(), model.name));
    let begun = Instant::now();
    let mut server = Server::start(&mut command, options.server_core, &log)?;
    let call = peer.call(model, port, Wire::Json);
    server.until(START, Duration::from_millis(5), || Ok(load::answers(&call)))?;
    Ok((server, port, begun.elapsed()))
}

/// All servers must give the same answer before anything is timed.
fn check(answer: &Answer, model: &Model, wire: Wire) -> anyhow::Result<()> {
    ensure!(answer.status.is_success(), "{}: {}", answer.status, String::from_utf8_lossy(&answer.body));
    let found = match wire {
        Wire::Json => json_values(&answer.body)?,
        Wire::Binary | Wire::Grpc => {
            ensure!(
                wire != Wire::Grpc || answer.grpc_status == Some(0),
                "grpc-status {:?} {:?}",
                answer.grpc_status,
                answer.headers
            );
            ensure!(contains(&answer.body, &model.probabilities), "other values than ONNX Runtime's");
            return Ok(());
        }
    };
    let same = |values: &Vec<f64>| {
        values.len() == model.probabilities.len()
            && values.iter().zip(&model.probabilities).all(|(got, want)| (got - f64::from(*want)).abs() < 1e-4)
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

/// Whether the floats stand somewhere in the bytes.
fn contains(body: &[u8], values: &[f32]) -> bool {
    body.windows(values.len() * 4).any(|window| {
        window.chunks_exact(4).zip(values).all(|(bytes, want)| {
            let got = <[u8; 4]>::try_from(bytes).map_or(f32::NAN, f32::from_le_bytes);
            (got - want).abs() < 1e-4
        })
    })
}

/// Three ports in a row that nobody uses now.
pub(crate) fn free_ports() -> anyhow::Result<u16> {
    use std::net::TcpListener;
    for _ in 0..100 {
        let first = TcpListener::bind("127.0.0.1:0")?;
        let port = first.local_addr()?.port();
        let next = |more: u16| port.checked_add(more).map(|port| TcpListener::bind(("127.0.0.1", port)));
        if matches!((next(1), next(2)), (Some(Ok(_)), Some(Ok(_)))) {
            return Ok(port);
        }
    }
    bail!("no three free ports in a row")
}
