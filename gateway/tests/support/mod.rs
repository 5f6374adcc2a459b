//! A gateway in this process, and model servers with real sockets and configurable misbehaviour.

#![allow(dead_code, unreachable_pub)]

pub mod client;
pub mod upstream;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use slipway_crds::routing::RoutingClaims;
use slipway_gateway::app::{self, ListeningPorts};
use slipway_gateway::error::GatewayError;
use slipway_gateway_policy::config::{
    ArmRole, BrakeConfig, EndpointGroup, ModelConfig, PodSettings, RoutingSnapshot, ShieldConfig,
    TrafficWeights, WeightedBackend,
};
use slipway_gateway_routing::context::GatewayContext;
use slipway_gateway_routing::settings::ProcessSettings;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::upstream::{Mood, Upstream};

pub const STABLE: &str = "aaaaaaaaaa";
pub const CANDIDATE: &str = "bbbbbbbbbb";
pub const MASTER: [u8; 32] = [7; 32];
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef0123456789a";

pub struct World {
    pub gateway: Arc<GatewayContext>,
    pub data: SocketAddr,
    pub private: SocketAddr,
    /// The files of the Secret.
    pub keys: tempfile::TempDir,
    pub admin: SocketAddr,
    pub snapshot: RoutingSnapshot,
    shutdown: CancellationToken,
    process: Option<JoinHandle<Result<(), GatewayError>>>,
}

impl World {
    /// A gateway with one ModelDeployment `digits`, without endpoints.
    pub async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub async fn with(adjust: impl FnOnce(&mut ProcessSettings)) -> Self {
        Self::on(loopback(), adjust).await
    }

    /// A gateway with its data port at this address.
    pub async fn on(data: SocketAddr, adjust: impl FnOnce(&mut ProcessSettings)) -> Self {
        let keys = tempfile::tempdir().unwrap();
        std::fs::write(keys.path().join("master"), MASTER).unwrap();
        std::fs::write(keys.path().join("token"), TOKEN).unwrap();
        let mut settings = ProcessSettings {
            drain_delay: Duration::from_millis(300),
            keys_directory: keys.path().to_owned(),
            ..ProcessSettings::default()
        };
        adjust(&mut settings);
        let gateway = GatewayContext::new(settings);
        let bind = || app::bind_port(loopback());
        let data = app::bind_port(data).await.unwrap();
        let (private, admin) = (bind().await.unwrap(), bind().await.unwrap());
        let ports = ListeningPorts { data, private, admin };
        let (data, admin) = (ports.data.local_addr().unwrap(), ports.admin.local_addr().unwrap());
        let private = ports.private.local_addr().unwrap();
        let shutdown = CancellationToken::new();
        let process = tokio::spawn(app::serve_ports(Arc::clone(&gateway), ports, shutdown.clone()));
        let snapshot = RoutingSnapshot {
            models: BTreeMap::from([("digits".to_owned(), model("digits"))]),
            endpoints: BTreeMap::new(),
        };
        Self { gateway, data, private, admin, keys, snapshot, shutdown, process: Some(process) }
    }

    pub fn model(&mut self) -> &mut ModelConfig {
        self.snapshot.models.get_mut("digits").unwrap()
    }

    /// `digits` declares the address that tests use, so that their gRPC messages need not contain a
    /// model name.
    pub fn declare_address(&mut self) -> &mut Self {
        let address = self.data.ip().to_string();
        self.model().claims.hosts = [address].into();
        self
    }

    /// Sets the candidate's weight to `permille`, and stable's to the rest.
    pub fn weigh(&mut self, generation: i64, permille: u32) -> &mut Self {
        let backend = |revision: &str, role, permille| WeightedBackend {
            revision: revision.into(),
            role,
            permille,
        };
        self.model().weights = Some(TrafficWeights {
            generation,
            backends: vec![
                backend(STABLE, ArmRole::Stable, 1000 - permille),
                backend(CANDIDATE, ArmRole::Candidate, permille),
            ],
            preview: None,
        });
        self
    }

    pub fn endpoints(&mut self, revision: &str, addrs: &[SocketAddr]) -> &mut Self {
        let group =
            EndpointGroup { ready: addrs.iter().copied().collect(), ..EndpointGroup::default() };
        self.snapshot.endpoints.insert(("digits".into(), revision.into()), group);
        self
    }

    pub fn apply(&self) {
        self.gateway.router.apply_snapshot(&self.snapshot);
        self.gateway.set_synced();
    }

    /// Simulates SIGTERM.
    pub fn terminate(&self) {
        self.shutdown.cancel();
    }

    /// Waits for the process to end.
    pub async fn ended(mut self) {
        let process = self.process.take().unwrap();
        within(Duration::from_secs(20), process).await.unwrap().unwrap();
    }

    pub fn metrics(&self) -> Scrape {
        Scrape(self.gateway.metrics.encode_text().unwrap())
    }
}

/// An address that is unique in this process, so that a client that reconnects to a closed port
/// reaches no other server.
pub fn loopback() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    // The process id separates test binaries that run at the same time.
    let process = (std::process::id() % 200 + 1) as u8;
    SocketAddr::from(([127, process, high, low.wrapping_add(1)], 0))
}

pub fn model(name: &str) -> ModelConfig {
    ModelConfig {
        name: name.into(),
        uid: format!("uid-of-{name}"),
        max_request: 16 << 20,
        scaled_to_zero: false,
        created: 0,
        claims: RoutingClaims { model_name: name.into(), ..RoutingClaims::default() },
        weights: None,
        stable: None,
        timeout: Duration::from_secs(5),
        caching: false,
        sticky_header: None,
        replay: true,
        shield: ShieldConfig { enabled: true, candidate_timeout: None },
        brake: BrakeConfig { enabled: false, ..BrakeConfig::DEFAULT },
        pod_settings: PodSettings::default(),
        outcomes: Vec::new(),
        rollout: String::new(),
        // Tests check the revision.
        reveals_revision: true,
    }
}

/// The metrics as Prometheus would read them.
pub struct Scrape(pub String);

impl Scrape {
    /// Sum of a metric over the series that have all these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let name = format!("slipway_gateway_{name}");
        let lines =
            self.0.lines().filter(|line| line.split(['{', ' ']).next() == Some(name.as_str()));
        let matching =
            lines.filter(|line| labels.iter().all(|(k, v)| line.contains(&format!("{k}=\"{v}\""))));
        matching.map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64).sum()
    }

    pub fn arm(&self, revision: &str, outcome: &str) -> u64 {
        self.sum("requests_total", &[("revision", revision), ("outcome", outcome)])
    }

    pub fn client(&self, outcome: &str) -> u64 {
        self.sum("client_requests_total", &[("outcome", outcome)])
    }

    /// Checks that every client request reached one arm, or two through the shield, or was
    /// rejected: none is lost or counted twice.
    pub fn assert_conserved(&self) {
        let arms = self.sum("requests_total", &[]);
        let (shielded, rejected) =
            (self.sum("shielded_total", &[]), self.sum("rejected_total", &[]));
        assert_eq!(
            self.sum("client_requests_total", &[]),
            arms - shielded + rejected,
            "{}",
            self.0
        );
    }
}

/// Fails the test when `work` takes longer than `limit`.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(limit, work).await.expect("took too long")
}

pub async fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !met() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

/// A gateway with one pod per arm.
pub async fn two_arms() -> (World, Upstream, Upstream) {
    let (stable, candidate) = (
        Upstream::start("stable", Mood::Good).await,
        Upstream::start("candidate", Mood::Good).await,
    );
    let mut world = World::new().await;
    world
        .weigh(1, 0)
        .endpoints(STABLE, &[stable.addr])
        .endpoints(CANDIDATE, &[candidate.addr])
        .apply();
    (world, stable, candidate)
}
