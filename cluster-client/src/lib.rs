//! The client of the API server, for operator and gateway.
//!
//! kube's own client does not detect a peer that disappears without closing the connection, for
//! example when a control plane node loses power or a firewall drops the connection's state. A
//! watch on it stays silent until its time limit of almost five minutes, and in this time the
//! gateway receives no new weights and does not detect lost pods. With this client the kernel
//! probes silent connections (TCP keep-alive) and gives up on unacknowledged data
//! (`TCP_USER_TIMEOUT`), both within [`DEAD_PEER_TIMEOUT`]. A watch then resumes where it was.

use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Config, Error};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};

/// Time within which a dead peer is detected.
pub const DEAD_PEER_TIMEOUT: Duration = Duration::from_secs(25);
/// A connection is probed after this time of silence.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Interval between two probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Number of unanswered probes before the connection is closed:
/// `KEEPALIVE_IDLE + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL == DEAD_PEER_TIMEOUT`.
const KEEPALIVE_PROBES: u32 = 3;
/// Time limit to connect, including TLS.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The service that sends the client's requests.
pub type Transport = BoxCloneSyncService<Request<Body>, Response<Incoming>, BoxError>;

/// A client builder that accepts further layers. It does not retry: kube's own retry can block one
/// call for many minutes, and watches and reconciles have their own backoff. It uses no proxy,
/// because the API server is in the cluster.
///
/// # Errors
/// When TLS or credentials cannot be set up.
pub fn client_builder(config: Config) -> Result<ClientBuilder<Transport>, Error> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_keepalive(Some(KEEPALIVE_IDLE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    connector.set_tcp_user_timeout(Some(DEAD_PEER_TIMEOUT));
    let mut connector =
        TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(
        config.connect_timeout.map(|asked| asked.min(CONNECT_TIMEOUT)).or(Some(CONNECT_TIMEOUT)),
    );
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let transport: HttpClient<_, Body> = HttpClient::builder(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(ClientBuilder::new(box_service(service), config.default_namespace))
}

fn box_service<S>(service: S) -> Transport
where
    S: Service<Request<Body>, Response = Response<Incoming>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    BoxCloneSyncService::new(service.map_err(Into::into))
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use tokio::net::TcpListener;

    use super::*;

    /// Type and remaining time of the kernel's timer for this process' connection to a port.
    fn timer(to: SocketAddr) -> Option<(u8, Duration)> {
        let remote = format!("0100007F:{:04X}", to.port());
        let table = std::fs::read_to_string("/proc/self/net/tcp").unwrap();
        let line =
            table.lines().find(|line| line.split_whitespace().nth(2) == Some(remote.as_str()))?;
        // `tr:tm->when`, in hundredths of a second.
        let (kind, when) = line.split_whitespace().nth(5)?.split_once(':')?;
        let when = Duration::from_millis(10 * u64::from_str_radix(when, 16).ok()?);
        Some((u8::from_str_radix(kind, 16).ok()?, when))
    }

    #[tokio::test]
    async fn the_kernel_asks_whether_the_peer_of_a_silent_watch_is_there() {
        // Numbers of the kernel: 2 is the keep-alive timer.
        const KEEP_ALIVE: u8 = 2;
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        let config = Config::new(format!("http://{address}").parse().unwrap());
        let client = client_builder(config).unwrap().build();
        let watch = tokio::spawn(async move { client.apiserver_version().await.map(drop) });
        let _connection = silent.accept().await.unwrap();
        let begun = std::time::Instant::now();
        // Another timer runs until the request has been acknowledged.
        let due = loop {
            match timer(address) {
                Some((KEEP_ALIVE, due)) => break due,
                other => assert!(begun.elapsed() < Duration::from_secs(10), "{other:?}"),
            }
            tokio::task::yield_now().await;
        };
        assert!(due <= KEEPALIVE_IDLE, "{due:?}");
        assert_eq!(KEEPALIVE_IDLE + KEEPALIVE_PROBES * KEEPALIVE_INTERVAL, DEAD_PEER_TIMEOUT);
        watch.abort();
    }
}
