//! The process: ports, watch, signals, and the order of the shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slipway_chassis::signals::ShutdownSignal;
use slipway_gateway_control::watch::{self, WatchEnded};
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::keys;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::args::GatewayArgs;
use crate::error::GatewayError;
use crate::proxy::received_request::PortAccess;
use crate::{admin, keep_alive, server};

/// Interval of the removal of old series and unused connections.
const SWEEP_INTERVAL: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub struct ListeningPorts {
    /// Data port for clients.
    pub data: TcpListener,
    /// Private port for clients with the token: feedback, and the operations that the data port
    /// rejects.
    pub private: TcpListener,
    /// Admin port for the operator, Prometheus and probes.
    pub admin: TcpListener,
}

/// Binds a port.
///
/// # Errors
/// When the address is in use or not local.
pub async fn bind_port(addr: SocketAddr) -> Result<TcpListener, GatewayError> {
    slipway_listener::bind_address(addr).map_err(|source| GatewayError::Listen { addr, source })
}

/// Runs the gateway until SIGTERM or SIGINT, and then drains.
///
/// # Errors
/// When it cannot start, or when a task that must not end has ended.
pub async fn run_gateway(args: GatewayArgs) -> Result<(), GatewayError> {
    let gateway = GatewayContext::new(args.to_settings());
    let (data, private) = (bind_port(args.listen).await?, bind_port(args.private_listen).await?);
    let ports = ListeningPorts { data, private, admin: bind_port(args.admin_listen).await? };
    let client = slipway_cluster_client::client_builder(kube::Config::infer().await?)?.build();

    let mut signals = ShutdownSignal::new().map_err(GatewayError::Signals)?;
    let shutdown = CancellationToken::new();
    // Continues while the gateway drains: endpoints must be current until the last request is done.
    let watching = watch::run_watch(Arc::clone(&gateway), client);
    let serving = serve_ports(Arc::clone(&gateway), ports, shutdown.clone());
    let mut watching = std::pin::pin!(watching);
    let mut serving = std::pin::pin!(serving);
    loop {
        tokio::select! {
            () = signals.recv() => shutdown.cancel(),
            // Without its watch the gateway would serve an ever older world: better to start again.
            ended = &mut watching => {
                return match ended {
                    Ok(never) => match never {},
                    Err(WatchEnded) => Err(GatewayError::Task("watch")),
                };
            }
            served = &mut serving => return served,
        }
    }
}

/// Serves all ports until `shutdown`, and then drains: it is not ready at once, continues serving
/// for a while, and then closes every connection gracefully. The admin port answers until the last
/// request is done.
///
/// # Errors
/// When a task that must not end has ended.
pub async fn serve_ports(
    gateway: Arc<GatewayContext>,
    ports: ListeningPorts,
    shutdown: CancellationToken,
) -> Result<(), GatewayError> {
    let (stop_data, stop_admin) = (CancellationToken::new(), CancellationToken::new());
    let mut tasks = JoinSet::new();
    tasks.spawn(admin::serve_admin(Arc::clone(&gateway), ports.admin, stop_admin.clone()));
    tasks.spawn(sweep_periodically(Arc::clone(&gateway), stop_admin.clone()));
    tasks.spawn(keep_alive::run_keep_alive(Arc::clone(&gateway), stop_admin.clone()));
    tasks.spawn(keys::reload_periodically(Arc::clone(&gateway.keys), stop_admin.clone()));
    let public =
        server::serve_port(Arc::clone(&gateway), ports.data, PortAccess::Public, stop_data.clone());
    let private = server::serve_port(
        Arc::clone(&gateway),
        ports.private,
        PortAccess::Private,
        stop_data.clone(),
    );
    let mut data = tokio::spawn(async move { _ = tokio::join!(public, private) });
    tokio::select! {
        () = shutdown.cancelled() => {}
        _ = &mut data => return Err(GatewayError::Task("data port")),
        _ = tasks.join_next() => return Err(GatewayError::Task("admin port")),
    }
    tracing::info!(delay_seconds = gateway.settings.drain_delay.as_secs(), "draining");
    gateway.set_draining();
    sleep(gateway.settings.drain_delay).await;
    stop_data.cancel();
    let drained = data.await.map_err(|_| GatewayError::Task("data port"));
    stop_admin.cancel();
    tasks.join_all().await;
    tracing::info!("drained");
    drained
}

async fn sweep_periodically(gateway: Arc<GatewayContext>, stop: CancellationToken) {
    let mut ticks = interval(SWEEP_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = ticks.tick() => gateway.sweep(Instant::now()),
        }
    }
}
