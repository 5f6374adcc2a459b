//! Brings a cluster up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use kube::api::{Api, DynamicObject};
use kube::discovery::ApiResource;
use slipway_provision::{go_tools, packages};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::environment::{self, admin_client};
use crate::error::{HarnessError, Result, in_words};
use crate::families::{self, IpFamilies};
use crate::layout::{self, ClusterLayout};
use crate::node::components::{self, ReadinessProbe, UpOptions};
use crate::node::{addons, config, down, netns, pki};
use crate::process::{MOUNT_HOLDER, NodeComponent, NodeProcess};
use crate::progress::TimedStep;
use crate::{cgroup, images, shell, wait};

/// Time limit for each part; on an idle machine a part starts in a second or two.
const DEADLINE: Duration = Duration::from_secs(120);
/// How often the watchdog checks that all components run.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);
/// Lines of the log in the error of a component that does not become ready.
const LOG_TAIL: usize = 25;

/// Brings the cluster up, from nothing or from the remains of an earlier run of the same name.
pub async fn bring_up(layout: &ClusterLayout, options: UpOptions) -> Result<()> {
    let since = Instant::now();
    check_location(layout)?;
    packages::require_packages(packages::NODE.iter().chain(packages::IMAGES))?;
    go_tools::ensure_tools(layout.cache(), layout.root(), go_tools::DEMO)?;
    if options.all {
        go_tools::ensure_tools(layout.cache(), layout.root(), go_tools::PROMISES)?;
    }
    let basic = images::build_basic_images(layout)?;
    clear_orphans(layout)?;
    if down::cluster_exists(layout)? {
        TimedStep::run("clearing leftovers", || down::remove_cluster(layout))?;
    }
    save_harness(layout)?;
    let mut node = TimedStep::run("preparing network, cgroup, certificates", || {
        ClusterBringup::prepare(layout, options)
    })?;
    node.start_control_plane(&basic).await?;
    node.start_workers().await?;
    eprintln!("cluster {} is up after {:.1} s", layout.name(), since.elapsed().as_secs_f64());
    Ok(())
}

/// Removes clusters whose checkouts are gone, because no other program does.
fn clear_orphans(layout: &ClusterLayout) -> Result<()> {
    for name in slipway_provision::registry_unit::file_names(&layout.cache().path("clusters")) {
        let Some(cluster) = name.strip_suffix(".root") else { continue };
        let orphan = ClusterLayout::new(cluster)?;
        let root = std::fs::read_to_string(orphan.checkout_note()).unwrap_or_default();
        if !Path::new(root.trim()).exists() {
            TimedStep::run(
                format!("clearing cluster {cluster} of {}, which is gone", root.trim()),
                || down::remove_cluster(&orphan),
            )?;
        }
    }
    Ok(())
}

/// Stores this program in the cache: `make down` must work when the checkout's build is gone or was
/// built from other sources.
fn save_harness(layout: &ClusterLayout) -> Result<()> {
    let own = std::env::current_exe().map_err(HarnessError::io("find", "this program"))?;
    let (kept, root) = (layout.harness_copy(), layout.checkout_note());
    let dir = layout.cache().path("clusters");
    std::fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
    std::fs::write(&root, layout.root().display().to_string())
        .map_err(HarnessError::io("write", &root))?;
    // By renaming, because a running program cannot be overwritten.
    let partial = kept.with_extension("partial");
    std::fs::copy(&own, &partial).map_err(HarnessError::io("copy", own))?;
    std::fs::rename(&partial, &kept).map_err(HarnessError::io("rename", &partial))
}

/// A cluster that is starting.
struct ClusterBringup<'a> {
    layout: &'a ClusterLayout,
    options: UpOptions,
    path: String,
    started_components: Vec<NodeComponent>,
}

impl<'a> ClusterBringup<'a> {
    fn prepare(layout: &'a ClusterLayout, options: UpOptions) -> Result<Self> {
        let data = layout.data_dir();
        for dir in [layout.logs_dir(), layout.pki_dir(), data.join("pids")] {
            std::fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
        }
        pki::write_pki(layout)?;
        config::write_configs(layout)?;
        cgroup::create_cgroup(layout)?;
        netns::create_netns(layout)?;
        let mut this = Self {
            layout,
            options,
            path: environment::search_path(layout),
            started_components: vec![],
        };
        this.start(mount_holder(layout))?;
        let ready = data.join("root/ready");
        wait::until_blocking("mounts of the node", DEADLINE, || ready.exists())
            .map_err(|_| mount_holder(layout).failure(layout, "did not mount"))?;
        Ok(this)
    }

    async fn start_control_plane(&mut self, basic: &[PathBuf]) -> Result<()> {
        self.start(components::new_etcd(self.layout)?)?;
        self.start(components::new_containerd(self.layout)?)?;
        self.start(components::new_apiserver(self.layout, self.options)?)?;
        // containerd is ready long before the apiserver is, so the import costs no time.
        let import = || async {
            images::import_archives(self.layout, basic).await.map_err(|error| in_words(&error))
        };
        self.wait_for("containerd", "containerd and its basic images", import).await?;
        let client = admin_client(self.layout).await?;
        self.wait_ready(&client, "kube-apiserver").await
    }

    async fn start_workers(&mut self) -> Result<()> {
        self.start(components::new_controller_manager(self.layout)?)?;
        self.start(components::new_scheduler(self.layout)?)?;
        self.start(components::new_kubelet(self.layout)?)?;
        self.start(components::new_kube_proxy(self.layout)?)?;
        self.start(components::new_coredns(self.layout)?)?;
        if self.options.all {
            self.start(components::new_prometheus(self.layout)?)?;
            self.start(components::new_metrics_server(self.layout)?)?;
        }
        let client = admin_client(self.layout).await?;
        let with_metrics = self.options.all;
        self.wait_for("kube-apiserver", "Services of DNS and metrics", || {
            apply_addons(self.layout, with_metrics)
        })
        .await?;
        self.wait_for("kubelet", "node is ready", || node_ready(self.layout, &client)).await?;
        let monitored: &[&str] = if self.options.all { &["prometheus"] } else { &[] };
        for component in ["kube-proxy", "coredns"].iter().chain(monitored) {
            self.wait_ready(&client, component).await?;
        }
        self.wait_for("kube-controller-manager", "service accounts", || {
            service_account_exists(&client)
        })
        .await?;
        self.wait_for("kube-proxy", "names resolve", || name_resolves(self.layout)).await?;
        if !self.options.all {
            return Ok(());
        }
        self.wait_for("metrics-server", "metrics API is available", || {
            api_available(&client, addons::METRICS_API)
        })
        .await
    }

    fn start(&mut self, component: NodeComponent) -> Result<()> {
        component.start(self.layout, &self.path)?;
        self.started_components.push(component);
        Ok(())
    }

    async fn wait_ready(&self, client: &kube::Client, component: &str) -> Result<()> {
        let probe = components::readiness_probe(component);
        self.wait_for(component, &format!("{component} is ready"), || {
            probe_component(self.layout, client, probe)
        })
        .await
    }

    /// Waits for a condition while watching that no component ends; on a timeout the error contains
    /// the log of the component that is responsible.
    async fn wait_for<F>(
        &self,
        component: &str,
        what: &str,
        condition: impl FnMut() -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<(), String>>,
    {
        let held = async {
            tokio::select! {
                held = wait::until_ok(what, DEADLINE, condition) => held,
                death = self.watch_components() => Err(death),
            }
        };
        TimedStep::run_async(what, held).await.map_err(|error| match error {
            HarnessError::Timeout { what, after, last, .. } => {
                let log = self.layout.log_file(component);
                let state = format!(
                    "the last lines of {}:\n{}",
                    log.display(),
                    shell::file_tail(&log, LOG_TAIL)
                );
                HarnessError::Timeout { what, after, last, state }
            }
            other => other,
        })
    }

    /// Returns when a component has ended.
    async fn watch_components(&self) -> HarnessError {
        loop {
            let dead = self
                .started_components
                .iter()
                .find(|component| NodeProcess::find_running(self.layout, component.name).is_none());
            if let Some(component) = dead {
                return component.failure(self.layout, "ended");
            }
            tokio::time::sleep(WATCH_INTERVAL).await;
        }
    }
}

/// Checks the readiness of a component once.
pub async fn probe_component(
    layout: &ClusterLayout,
    client: &kube::Client,
    probe: ReadinessProbe,
) -> Result<(), String> {
    match probe {
        ReadinessProbe::None => Ok(()),
        ReadinessProbe::Http(port, path) => {
            http_ok(layout, port, path).await.map_err(|error| in_words(&error))
        }
        ReadinessProbe::Api(path) => {
            let request =
                http::Request::get(path).body(vec![]).map_err(|error| in_words(&error))?;
            client.request_text(request).await.map(drop).map_err(|error| in_words(&error))
        }
    }
}

/// Paths that are replaced on the node.
const NODE_PATHS: [&str; 3] = ["run", "var/lib", "var/log"];

/// The cluster's folder must not be inside a replaced path, because the node could not see it.
fn check_location(layout: &ClusterLayout) -> Result<()> {
    let hidden =
        |place: &Path| NODE_PATHS.iter().any(|path| place.starts_with(Path::new("/").join(path)));
    match [layout.root(), layout.cache().root()].into_iter().find(|place| hidden(place)) {
        Some(place) => Err(HarnessError::Other(format!(
            "a cluster cannot run from {}: the node hides that place",
            place.display()
        ))),
        None => Ok(()),
    }
}

/// The process that holds the node's mount namespace.
///
/// In this namespace, folders of `data` replace `/run`, `/var/lib` and `/var/log`, so that
/// container runtime and kubelet can use their usual paths, while every file, socket and mount is
/// in `data` or ends with the namespace. Mounts do not propagate to the host; inside, they are
/// shared, as kubelets require.
fn mount_holder(layout: &ClusterLayout) -> NodeComponent {
    // The mounts of other clusters' network namespaces are removed from the copy: they would keep
    // these namespaces alive when their clusters are removed.
    let script = r#"set -e
        umount --no-mtab --recursive --lazy /run/netns
        for path in "$@"; do
            mkdir -p "$0/$path"
            mount --no-mtab --bind "$0/$path" "/$path"
        done
        mount --no-mtab --make-rshared /
        touch "$0/ready"
        exec sleep infinity"#;
    let root = layout.data_dir().join("root").display().to_string();
    let arguments = ["--mount", "--propagation", "private", "sh", "-c", script, &root];
    let arguments =
        arguments.iter().chain(&NODE_PATHS).map(|argument| (*argument).to_string()).collect();
    NodeComponent { name: MOUNT_HOLDER, program: "unshare".into(), arguments, node_mounts: false }
}

async fn http_ok(layout: &ClusterLayout, port: u16, path: &str) -> std::io::Result<()> {
    let mut stream = tokio::net::TcpStream::connect((layout.node_ip(), port)).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: node\r\n\r\n").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let status = answer.lines().next().unwrap_or_default();
    if status.contains(" 200 ") {
        Ok(())
    } else {
        Err(std::io::Error::other(format!("{path} answers `{status}`")))
    }
}

async fn apply_addons(layout: &ClusterLayout, with_metrics: bool) -> Result<(), String> {
    let file = layout.config_dir().join("addons.json");
    std::fs::write(&file, addons::addon_manifests(layout, with_metrics).to_string())
        .map_err(|error| in_words(&error))?;
    let mut kubectl =
        Command::new(layout.program_path("kubectl").map_err(|error| in_words(&error))?);
    environment::set_environment(&mut kubectl, layout);
    kubectl.args(["apply", "--server-side", "-f"]).arg(&file);
    shell::run_async(kubectl).await.map(drop).map_err(|error| in_words(&error))
}

async fn node_ready(layout: &ClusterLayout, client: &kube::Client) -> Result<(), String> {
    let node = Api::<Node>::all(client.clone())
        .get(&layout.node_name())
        .await
        .map_err(|error| in_words(&error))?;
    let conditions = node.status.and_then(|status| status.conditions).unwrap_or_default();
    match conditions.iter().find(|condition| condition.type_ == "Ready") {
        Some(ready) if ready.status == "True" => Ok(()),
        Some(ready) => Err(ready.message.clone().unwrap_or_default()),
        None => Err("no condition Ready".into()),
    }
}

/// Pods cannot be created in a namespace before its service account exists.
async fn service_account_exists(client: &kube::Client) -> Result<(), String> {
    let api: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    api.get("default").await.map(drop).map_err(|error| in_words(&error))
}

/// Uses the address of the Service, so that it checks kube-proxy as well as CoreDNS.
async fn name_resolves(layout: &ClusterLayout) -> Result<(), String> {
    let mut lookup = netns::netns_command(layout);
    let families = layout.families();
    let record = if families == IpFamilies::DualIpv6 { "-type=aaaa" } else { "-type=a" };
    lookup.args(["busybox", "nslookup", record, "kubernetes.default.svc.cluster.local"]);
    let answer = shell::run_async({
        lookup.arg(layout::DNS_SERVICE_IP.to_string());
        lookup
    });
    let answer = answer.await.map_err(|error| in_words(&error))?;
    let address =
        families.first_address(layout::API_SERVICE_IP, families::API_SERVICE_IP).to_string();
    if answer.contains(&address) { Ok(()) } else { Err(format!("no {address} in: {answer}")) }
}

/// Whether the server behind an APIService answers.
pub async fn api_available(client: &kube::Client, name: &str) -> Result<(), String> {
    let resource = ApiResource {
        group: "apiregistration.k8s.io".into(),
        version: "v1".into(),
        api_version: "apiregistration.k8s.io/v1".into(),
        kind: "APIService".into(),
        plural: "apiservices".into(),
    };
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
    let service = api.get(name).await.map_err(|error| in_words(&error))?;
    let conditions = service.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let available = conditions.iter().find(|condition| condition["type"] == "Available");
    match available {
        Some(condition) if condition["status"] == "True" => Ok(()),
        Some(condition) => Err(condition["message"].to_string()),
        None => Err("no condition Available".into()),
    }
}
