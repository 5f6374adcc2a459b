//! A real etcd and kube-apiserver for the tests of this package, one pair per test binary.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    unreachable_pub,
    reason = "a test may panic, and exports nothing"
)]

pub mod audit;
pub mod fakes;
pub mod world;

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, PolicyRule};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::conditions;
use kube::runtime::wait::await_condition;
use kube::{Api, Client, Config};
use serde_json::json;
use slipway_operator::process::rbac;
use slipway_provision::go_tools;
use tokio::sync::OnceCell;

/// Time limit of any single wait, on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(90);
/// Number of users whose requests the audit log records, one per operator.
const OPERATORS: usize = 32;

/// The control plane.
pub struct Plane {
    port: u16,
    directory: PathBuf,
    operators: AtomicUsize,
    /// Kept open while this process lives; the shells that run the servers end with it.
    _servers: Vec<Child>,
}

static PLANE: OnceCell<Plane> = OnceCell::const_new();

/// The control plane; the first call starts it.
pub async fn plane() -> &'static Plane {
    PLANE.get_or_init(Plane::start).await
}

/// Polls a condition that no watch reports.
pub async fn eventually(what: &str, holds: impl AsyncFnMut() -> bool) {
    eventually_within(DEADLINE, what, holds).await;
}

/// Like [`eventually`], with another time limit.
pub async fn eventually_within(
    deadline: Duration,
    what: &str,
    mut holds: impl AsyncFnMut() -> bool,
) {
    let waited = tokio::time::timeout(deadline, async {
        let mut tick = tokio::time::interval(Duration::from_millis(50));
        while !holds().await {
            tick.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "not in time: {what}");
}

/// The program `name` from `SLIPWAY_KUBE_BIN` (colon-separated folders) or from the cache, where it
/// is built when it is missing.
fn binary(name: &str) -> PathBuf {
    let given = std::env::var("SLIPWAY_KUBE_BIN").unwrap_or_default();
    let folders = given.split(':').filter(|f| !f.is_empty()).map(PathBuf::from);
    let found = folders.map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| {
        let cache = slipway_provision::BuildCache::from_env().unwrap();
        go_tools::ensure_program(&cache, &slipway_provision::workspace_root(), name).unwrap()
    })
}

/// A port that is currently free.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a server under a shell that kills it when this process' end of the shell's standard input
/// closes, however this process ends. Logs and data are deleted with it, unless `SLIPWAY_KEEP` is
/// set.
fn spawn(binary: &Path, log: &Path, arguments: &[String]) -> Child {
    let script = r#"log=$1; shift; "$@" >"$log" 2>&1 </dev/null & pid=$!; read -r _; kill -9 "$pid"; wait "$pid"
        [ -n "$SLIPWAY_KEEP" ] || rm -rf "${log%/*}""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(log).arg(binary).args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Plane {
    async fn start() -> Self {
        slipway_chassis::tls::install_provider();
        let directory =
            std::env::temp_dir().join(format!("slipway-apiserver-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        let (client, peer, port) = (free_port(), free_port(), free_port());
        let etcd = spawn(
            &binary("etcd"),
            &directory.join("etcd.log"),
            &etcd_arguments(&directory, client, peer),
        );
        let key = rcgen::KeyPair::generate().unwrap();
        fs::write(directory.join("key.pem"), key.serialize_pem()).unwrap();
        fs::write(directory.join("public.pem"), key.public_key_pem()).unwrap();
        fs::write(directory.join("tokens"), tokens()).unwrap();
        fs::write(directory.join("policy.yaml"), POLICY).unwrap();
        let arguments = apiserver_arguments(&directory, client, port);
        let server = spawn(&binary("kube-apiserver"), &directory.join("apiserver.log"), &arguments);
        let plane =
            Self { port, directory, operators: AtomicUsize::new(0), _servers: vec![etcd, server] };
        let admin = plane.admin();
        eventually("the API server is ready", async || ready(&admin).await).await;
        install_crd(&admin).await;
        grant(&admin).await;
        plane
    }

    /// A client with all permissions.
    pub fn admin(&self) -> Client {
        Client::try_from(self.config("admin")).unwrap()
    }

    /// Client configuration of a user.
    pub fn config(&self, user: &str) -> Config {
        let mut config = Config::new(format!("https://127.0.0.1:{}", self.port).parse().unwrap());
        config.accept_invalid_certs = true;
        config.auth_info.token = Some(format!("token-of-{user}").into());
        config.default_retry = false;
        config
    }

    /// The name of a user that no other test uses, with the permissions of the operator.
    pub fn operator_user(&self) -> String {
        let number = self.operators.fetch_add(1, Ordering::Relaxed);
        assert!(number < OPERATORS, "more operators than users");
        format!("operator-{number}")
    }

    /// A kubeconfig of a user, for a separate process.
    pub fn kubeconfig(&self, user: &str) -> PathBuf {
        let path = self.directory.join(format!("{user}.kubeconfig"));
        let text = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": format!("https://127.0.0.1:{}", self.port), "insecure-skip-tls-verify": true}}],
            "users": [{"name": "u", "user": {"token": format!("token-of-{user}")}}]
        });
        fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// The audit log, with every request of operators.
    pub fn audit_log(&self) -> PathBuf {
        self.directory.join("audit.log")
    }
}

const POLICY: &str = "
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- level: Metadata
  userGroups: [operators]
- level: None
";

fn tokens() -> String {
    let admin = "token-of-admin,admin,admin,system:masters\n".to_owned();
    (0..OPERATORS).fold(admin, |all, n| {
        format!("{all}token-of-operator-{n},operator-{n},operator-{n},operators\n")
    })
}

fn etcd_arguments(directory: &Path, client: u16, peer: u16) -> Vec<String> {
    let client = format!("http://127.0.0.1:{client}");
    let data = directory.join("etcd");
    vec![
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls=http://127.0.0.1:{peer}"),
        "--unsafe-no-fsync".into(),
        "--log-level=error".into(),
    ]
}

fn apiserver_arguments(directory: &Path, etcd: u16, port: u16) -> Vec<String> {
    let file = |name: &str| directory.join(name).display().to_string();
    vec![
        format!("--etcd-servers=http://127.0.0.1:{etcd}"),
        format!("--secure-port={port}"),
        "--bind-address=127.0.0.1".into(),
        format!("--cert-dir={}", file("certificates")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", file("public.pem")),
        format!("--service-account-signing-key-file={}", file("key.pem")),
        format!("--token-auth-file={}", file("tokens")),
        "--authorization-mode=RBAC".into(),
        "--service-cluster-ip-range=10.96.0.0/16".into(),
        "--disable-admission-plugins=ServiceAccount".into(),
        // As on clusters that check the permission to block an owner's deletion.
        "--enable-admission-plugins=OwnerReferencesPermissionEnforcement".into(),
        format!("--audit-policy-file={}", file("policy.yaml")),
        format!("--audit-log-path={}", file("audit.log")),
        "--audit-log-mode=blocking".into(),
        "--shutdown-delay-duration=0s".into(),
    ]
}

async fn ready(client: &Client) -> bool {
    let request = http::Request::get("/readyz").body(Vec::new()).unwrap();
    client.request_text(request).await.is_ok_and(|text| text == "ok")
}

async fn install_crd(admin: &Client) {
    let api = Api::<CustomResourceDefinition>::all(admin.clone());
    for crd in slipway_crds::all_crds() {
        let name = crd.metadata.name.clone().unwrap();
        api.create(&PostParams::default(), &crd).await.unwrap();
        let established = await_condition(api.clone(), &name, conditions::is_crd_established());
        tokio::time::timeout(DEADLINE, established).await.expect("the CRD is established").unwrap();
    }
    // Right after the CRD is established, the API server answers 429 for a moment.
    let models = Api::<slipway_crds::v1alpha1::ModelDeployment>::all(admin.clone());
    eventually("ModelDeployments can be listed", async || {
        models.list(&Default::default()).await.is_ok()
    })
    .await;
}

/// Grants operators exactly the rules of the table, so that any other request fails the tests.
async fn grant(admin: &Client) {
    let rules = rbac::CLUSTER_RULES.iter().chain(rbac::LEASE_RULES).map(|rule| PolicyRule {
        api_groups: Some(vec![rule.group.into()]),
        resources: Some(vec![rule.resource.into()]),
        verbs: rule.verbs.iter().map(|v| (*v).into()).collect(),
        ..PolicyRule::default()
    });
    let metadata = ObjectMeta { name: Some("operators".into()), ..ObjectMeta::default() };
    let role = ClusterRole { metadata, rules: Some(rules.collect()), ..ClusterRole::default() };
    Api::all(admin.clone()).create(&PostParams::default(), &role).await.unwrap();
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": "operators"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "operators"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "operators"}]
    }))
    .unwrap();
    Api::all(admin.clone()).create(&PostParams::default(), &binding).await.unwrap();
    let gateway: ClusterRole =
        serde_json::from_value(json!({"metadata": {"name": "slipway-gateway"}, "rules": []}))
            .unwrap();
    Api::all(admin.clone()).create(&PostParams::default(), &gateway).await.unwrap();
}
