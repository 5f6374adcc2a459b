//! Measures the cost of the gateway alone: runs a gateway with routes from the command line, or a
//! model server that does nothing.
//!
//! Start `hop upstream 127.0.0.1:9001` and
//! `hop gateway 127.0.0.1:8080 127.0.0.1:9001 127.0.0.1:9002 100` (stable, candidate, permille),
//! then send load to 127.0.0.1:8080 and read the CPU time of the process.

use std::convert::Infallible;
use std::env::args;
use std::error::Error;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use slipway_crds::routing::RoutingClaims;
use slipway_gateway::app::{self, ListeningPorts};
use slipway_gateway_policy::config::{
    ArmRole, BrakeConfig, EndpointGroup, ModelConfig, PodSettings, RoutingSnapshot, ShieldConfig,
    TrafficWeights, WeightedBackend,
};
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::settings::ProcessSettings;
use tokio_util::sync::CancellationToken;

#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["upstream", listen] => upstream(listen.parse()?).await,
        ["gateway", listen, stable, candidate, permille] => {
            gateway(listen.parse()?, stable.parse()?, candidate.parse()?, permille.parse()?).await
        }
        _ => Err("usage: hop upstream ADDR | hop gateway ADDR STABLE CANDIDATE PERMILLE".into()),
    }
}

async fn gateway(
    listen: SocketAddr,
    stable: SocketAddr,
    candidate: SocketAddr,
    permille: u32,
) -> Result<(), Box<dyn Error>> {
    let gateway = GatewayContext::new(ProcessSettings::default());
    let backend = |revision: &str, role, permille| WeightedBackend {
        revision: revision.into(),
        role,
        permille,
    };
    let backends = vec![
        backend("aaa", ArmRole::Stable, 1000 - permille),
        backend("bbb", ArmRole::Candidate, permille),
    ];
    let config = ModelConfig {
        name: "digits".into(),
        uid: "uid".into(),
        created: 0,
        claims: RoutingClaims { model_name: "digits".into(), ..RoutingClaims::default() },
        weights: Some(TrafficWeights { generation: 1, backends, preview: None }),
        stable: None,
        timeout: Duration::from_secs(30),
        max_request: 16 << 20,
        scaled_to_zero: false,
        caching: false,
        sticky_header: None,
        replay: true,
        shield: ShieldConfig { enabled: true, candidate_timeout: None },
        brake: BrakeConfig::DEFAULT,
        pod_settings: PodSettings::default(),
        outcomes: Vec::new(),
        rollout: String::new(),
        reveals_revision: true,
    };
    let group = |addr| EndpointGroup { ready: [addr].into(), ..EndpointGroup::default() };
    let key = |revision: &str| ("digits".to_owned(), revision.to_owned());
    gateway.router.apply_snapshot(&RoutingSnapshot {
        models: [("digits".to_owned(), config)].into(),
        endpoints: [(key("aaa"), group(stable)), (key("bbb"), group(candidate))].into(),
    });
    gateway.set_synced();
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let (private, admin) = (app::bind_port(loopback).await?, app::bind_port(loopback).await?);
    println!("admin on {}", admin.local_addr()?);
    let ports = ListeningPorts { data: app::bind_port(listen).await?, private, admin };
    Ok(app::serve_ports(gateway, ports, CancellationToken::new()).await?)
}

async fn upstream(listen: SocketAddr) -> Result<(), Box<dyn Error>> {
    let listener = app::bind_port(listen).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(
            http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(nothing)),
        );
    }
}

async fn nothing(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    drop(request.into_body().collect().await);
    let answer = r#"{"model_name":"digits","outputs":[{"name":"p","shape":[1],"datatype":"FP32","data":[0.5]}]}"#;
    Ok(Response::new(Full::from(answer)))
}
