//! The layout of a cluster: every path, name and address follows from the name of the cluster.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use slipway_provision::{BuildCache, go_tools};

use crate::error::{HarnessError, Result};
use crate::families::IpFamilies;

/// Addresses of pods. The same in every cluster, as each has its own network namespace.
pub const POD_CIDR: &str = "10.244.0.0/16";
/// The part of [`POD_CIDR`] of the first node.
pub const NODE_POD_CIDR: &str = "10.244.0.0/24";
/// Addresses of Services.
pub const SERVICE_CIDR: &str = "10.96.0.0/16";
/// Address of the Service `kubernetes`.
pub const API_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Address of the Service `kube-dns`.
pub const DNS_SERVICE_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 10);

/// Linux limits the name of a link to 15 bytes, of which the prefix takes 3.
const NAME_LIMIT: usize = 12;
/// Links are /30 subnets of the benchmarking range 198.18.0.0/15, which no real network uses.
const LINK_BASE: u32 = u32::from_be_bytes([198, 18, 0, 0]);
const LINK_SUBNETS: u32 = 1 << 15;

/// Names, paths and addresses of one cluster.
#[derive(Debug, Clone)]
pub struct ClusterLayout {
    name: String,
    root: PathBuf,
    cache: BuildCache,
    families: IpFamilies,
}

impl ClusterLayout {
    /// The layout of cluster `name` in this workspace; `SLIPWAY_CACHE` moves the cache.
    pub fn new(name: &str) -> Result<Self> {
        let root = workspace_root();
        Ok(Self {
            families: IpFamilies::from_env()?,
            ..Self::in_workspace(name, root, BuildCache::from_env()?)?
        })
    }

    fn in_workspace(name: &str, root: PathBuf, cache: BuildCache) -> Result<Self> {
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let begins = name.starts_with(|c: char| c.is_ascii_lowercase());
        if !begins || name.ends_with('-') || name.len() > NAME_LIMIT || !name.chars().all(legal) {
            return Err(HarnessError::Name(name.into()));
        }
        Ok(Self { name: name.into(), root, cache, families: IpFamilies::Ipv4 })
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// The IP families for bringing up the cluster.
    pub fn families(&self) -> IpFamilies {
        self.families
    }

    /// Root of the workspace.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Files that outlive clusters and checkouts: binaries, base images.
    pub fn cache(&self) -> &BuildCache {
        &self.cache
    }

    /// Path of another project's program in the cache, whether it exists or not.
    pub fn program_path(&self, name: &str) -> Result<PathBuf> {
        Ok(go_tools::program_path(&self.cache, &self.root, name)?)
    }

    /// The same, built if it does not exist yet.
    pub fn ensure_program(&self, name: &str) -> Result<PathBuf> {
        Ok(go_tools::ensure_program(&self.cache, &self.root, name)?)
    }

    /// A copy of the harness that brought the cluster up.
    pub fn harness_copy(&self) -> PathBuf {
        self.cache.path("clusters").join(&self.name)
    }

    /// File that names the checkout that brought the cluster up.
    pub fn checkout_note(&self) -> PathBuf {
        self.harness_copy().with_extension("root")
    }

    /// Directory that is removed with the cluster.
    pub fn data_dir(&self) -> PathBuf {
        self.root.join("target/e2e/clusters").join(&self.name)
    }

    /// Directory of log files, one per component.
    pub fn logs_dir(&self) -> PathBuf {
        self.data_dir().join("logs")
    }

    /// Log file of one component.
    pub fn log_file(&self, component: &str) -> PathBuf {
        self.logs_dir().join(format!("{component}.log"))
    }

    /// The apiserver's audit log, written when `up --audit` was used.
    pub fn audit_log(&self) -> PathBuf {
        self.logs_dir().join("audit.jsonl")
    }

    /// File with the process id of a component.
    pub fn pid_file(&self, component: &str) -> PathBuf {
        self.data_dir().join("pids").join(format!("{component}.json"))
    }

    /// Directory of certificates and keys.
    pub fn pki_dir(&self) -> PathBuf {
        self.data_dir().join("pki")
    }

    /// Directory of the rendered configuration of the components.
    pub fn config_dir(&self) -> PathBuf {
        self.data_dir().join("etc")
    }

    /// Kubeconfig of an administrator, readable on and outside the node.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir().join("kubeconfig")
    }

    /// Name of the network namespace.
    pub fn netns_name(&self) -> String {
        format!("slipway-e2e-{}", self.name)
    }

    /// Path of the network namespace, as `ip netns add` creates it.
    pub fn netns_path(&self) -> PathBuf {
        Path::new("/run/netns").join(self.netns_name())
    }

    /// Name of the cgroup below the root of each hierarchy.
    pub fn cgroup_name(&self) -> String {
        format!("slipway-e2e-{}", self.name)
    }

    /// Name of the host's end of the link to the node.
    pub fn link_name(&self) -> String {
        format!("sw-{}", self.name)
    }

    /// Name of the Kubernetes node.
    pub fn node_name(&self) -> String {
        format!("{}-node", self.name)
    }

    /// Address of the host's end of the link.
    pub fn host_ip(&self) -> Ipv4Addr {
        self.link_ip(1)
    }

    /// Address of the node, reachable from the host and from pods.
    pub fn node_ip(&self) -> Ipv4Addr {
        self.link_ip(2)
    }

    pub fn prometheus_url(&self) -> String {
        format!("http://{}:9090", self.node_ip())
    }

    pub fn api_url(&self) -> String {
        format!("https://{}:6443", self.node_ip())
    }

    fn link_ip(&self, host: u32) -> Ipv4Addr {
        let digest = Sha256::digest(self.name.as_bytes());
        let hash = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        Ipv4Addr::from(LINK_BASE + (hash % LINK_SUBNETS) * 4 + host)
    }
}

/// Default name of the cluster: different for each checkout, so that two checkouts do not remove
/// each other's cluster.
pub fn default_name() -> String {
    let digest = Sha256::digest(workspace_root().as_os_str().as_encoded_bytes());
    format!("slipway-{}", hex::encode(&digest[..2]))
}

/// Root of the workspace in which this crate was built.
pub fn workspace_root() -> PathBuf {
    slipway_provision::workspace_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(name: &str) -> Result<ClusterLayout> {
        ClusterLayout::in_workspace(name, "/w".into(), BuildCache::with_root("/c"))
    }

    #[test]
    fn names_are_checked() {
        for good in ["a", "slipway", "a-b", "abcdefghijkl"] {
            assert!(layout(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "1a", "a_b", "a/b", "abcdefghijklm", ".."] {
            assert!(layout(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_default_name_is_a_name() {
        assert!(layout(&default_name()).is_ok());
    }

    #[test]
    fn names_fit_kernel_limits() {
        assert!(layout("abcdefghijkl").unwrap().link_name().len() <= 15);
    }

    #[test]
    fn addresses_follow_from_the_name() {
        let (one, two) = (layout("slipway").unwrap(), layout("other").unwrap());
        assert_eq!(one.node_ip(), layout("slipway").unwrap().node_ip());
        assert_ne!(one.node_ip(), two.node_ip());
        for ip in [one.host_ip(), one.node_ip(), two.host_ip(), two.node_ip()] {
            assert_eq!(ip.octets()[0], 198);
            assert!([18, 19].contains(&ip.octets()[1]));
        }
        assert_eq!(u32::from(one.node_ip()) - u32::from(one.host_ip()), 1);
        assert_eq!(u32::from(one.host_ip()) % 4, 1);
    }

    #[test]
    fn data_stays_in_the_workspace() {
        assert!(layout("a").unwrap().kubeconfig().starts_with("/w/target/e2e/clusters/a"));
    }
}
