//! Removes a cluster, whatever state it is in.

use std::path::Path;

use nix::mount::{MntFlags, umount2};

use crate::cgroup;
use crate::error::{HarnessError, Result};
use crate::layout::ClusterLayout;
use crate::node::netns;

/// Removes everything with the name of the cluster; succeeds when nothing exists.
///
/// Processes first: all of them, including shims and containers, are in the cluster's cgroup. The
/// private mount namespace ends with the last process, and with it all mounts. Then network,
/// cgroups and files can be removed.
pub fn remove_cluster(layout: &ClusterLayout) -> Result<()> {
    cgroup::kill_all(layout)?;
    netns::delete_netns(layout)?;
    unmount_netns_dir();
    cgroup::remove_cgroup(layout)?;
    unmount_data(layout)?;
    let data = layout.data_dir();
    for left in [data, layout.harness_copy(), layout.checkout_note()] {
        slipway_provision::cache::remove_path(&left)?;
    }
    Ok(())
}

/// Whether anything with the name of the cluster exists.
pub fn cluster_exists(layout: &ClusterLayout) -> Result<bool> {
    let traces =
        layout.data_dir().exists() || layout.netns_path().exists() || netns::link_exists(layout);
    Ok(traces || !cgroup::cgroup_roots(layout)?.is_empty())
}

/// Unmounts the cluster's directory. Its mounts are in its own mount namespace, so this one has
/// none, unless a developer made one by hand; removing files would then remove the mounted ones.
fn unmount_data(layout: &ClusterLayout) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")
        .map_err(HarnessError::io("read", "/proc/self/mountinfo"))?;
    let data = layout.data_dir();
    let points = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| is_inside(&data, point));
    // In reverse, as later mounts may be inside earlier ones.
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        umount2(point, MntFlags::MNT_DETACH)
            .map_err(std::io::Error::from)
            .map_err(HarnessError::io("unmount", point))?;
    }
    Ok(())
}

/// `ip netns add` makes the folder of all network namespaces a mount; the mount is removed with the
/// last namespace.
fn unmount_netns_dir() {
    let dir = Path::new("/run/netns");
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) {
        // Fails when it is no mount, or when a namespace is created at this moment; both are fine.
        // Repeated for each mount, as `ip` may have stacked two.
        while umount2(dir, MntFlags::empty()).is_ok() {}
    }
}

fn is_inside(data: &Path, point: &str) -> bool {
    Path::new(point).starts_with(data)
}
