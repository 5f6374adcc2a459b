//! The cgroup of a cluster, in each hierarchy.
//!
//! It contains every process of a cluster, including containers, and no other process. So it
//! identifies the processes of the cluster even when pid files are lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::error::{HarnessError, Result};
use crate::layout::ClusterLayout;
use crate::wait;

const ROOT: &str = "/sys/fs/cgroup";
const DEADLINE: Duration = Duration::from_secs(20);

/// Creates the cgroup in every hierarchy: the kubelet requires its root cgroup in all of them.
pub fn create_cgroup(layout: &ClusterLayout) -> Result<()> {
    for hierarchy in cgroup_hierarchies()? {
        let dir = hierarchy.join(layout.cgroup_name());
        std::fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
        // A new cpuset is empty, and no process can join an empty one.
        for file in ["cpuset.cpus", "cpuset.mems"] {
            if let Ok(value) = std::fs::read_to_string(hierarchy.join(file)) {
                std::fs::write(dir.join(file), value.trim())
                    .map_err(HarnessError::io("write", dir.join(file)))?;
            }
        }
    }
    let components = components_cgroup(layout)?;
    std::fs::create_dir_all(&components).map_err(HarnessError::io("create", &components))
}

/// The cgroup of the components themselves. One hierarchy is enough to find them.
pub fn components_cgroup(layout: &ClusterLayout) -> Result<PathBuf> {
    let all = cgroup_hierarchies()?;
    let tracking = all.iter().find(|hierarchy| hierarchy.ends_with("pids")).or(all.first());
    let tracking =
        tracking.ok_or_else(|| HarnessError::Other(format!("no cgroup hierarchy below {ROOT}")))?;
    Ok(tracking.join(layout.cgroup_name()).join("components"))
}

/// Kills every process of the cluster and waits until none is left.
pub fn kill_all(layout: &ClusterLayout) -> Result<()> {
    let roots = cgroup_roots(layout)?;
    wait::until_blocking("all processes have ended", DEADLINE, || {
        let pids: Vec<Pid> = roots.iter().flat_map(|root| list_processes(root)).collect();
        for pid in &pids {
            // It may have ended in between.
            let _ = kill(*pid, Signal::SIGKILL);
        }
        pids.is_empty()
    })
}

/// Removes the empty cgroups.
pub fn remove_cgroup(layout: &ClusterLayout) -> Result<()> {
    let roots = cgroup_roots(layout)?;
    // The kernel needs a moment after the last process before a cgroup can be removed.
    wait::until_blocking("cgroups are removed", DEADLINE, || {
        roots.iter().for_each(|root| remove_tree(root));
        roots.iter().all(|root| !root.exists())
    })
}

/// The cgroups of the cluster that exist.
pub fn cgroup_roots(layout: &ClusterLayout) -> Result<Vec<PathBuf>> {
    let all =
        cgroup_hierarchies()?.into_iter().map(|hierarchy| hierarchy.join(layout.cgroup_name()));
    Ok(all.filter(|dir| dir.exists()).collect())
}

/// With version 2 the root is the only hierarchy, with version 1 each folder below it is one.
fn cgroup_hierarchies() -> Result<Vec<PathBuf>> {
    let root = Path::new(ROOT);
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_path_buf()]);
    }
    let mut dirs: Vec<PathBuf> =
        child_dirs(root).filter(|dir| dir.join("cgroup.procs").exists()).collect();
    // Some names are links to hierarchies of two controllers.
    dirs.retain(|dir| !dir.is_symlink());
    Ok(dirs)
}

fn list_processes(root: &Path) -> Vec<Pid> {
    let own = std::fs::read_to_string(root.join("cgroup.procs")).unwrap_or_default();
    let own =
        own.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1).map(Pid::from_raw);
    let mut all: Vec<Pid> = own.collect();
    all.extend(child_dirs(root).flat_map(|child| list_processes(&child)));
    all
}

fn remove_tree(root: &Path) {
    child_dirs(root).for_each(|child| remove_tree(&child));
    // Fails while processes are ending; the caller retries.
    let _ = std::fs::remove_dir(root);
}

fn child_dirs(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(|entry| entry.ok());
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
}
