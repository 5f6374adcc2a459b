//! Taking a cluster down, whatever state it is in.

use std::path::Path;

use nix::mount::{MntFlags, umount2};

use crate::cgroup;
use crate::error::{HarnessError, Result};
use crate::layout::ClusterLayout;
use crate::node::netns;

/// Removes everything that bears the name of the cluster; succeeds when nothing does.
///
/// Processes first: all are in our cgroup, shims and containers included. The last one takes the
/// private mount namespace and with it all mounts along. Then network, cgroups and files can go.
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

/// Whether something bears the name of the cluster.
pub fn cluster_exists(layout: &ClusterLayout) -> Result<bool> {
    let traces =
        layout.data_dir().exists() || layout.netns_path().exists() || netns::link_exists(layout);
    Ok(traces || !cgroup::cgroup_roots(layout)?.is_empty())
}

/// Mounts of the cluster are in its own namespace, so there are none here, unless somebody made one
/// by hand to look at something; removing files would then go through it.
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

/// `ip netns add` makes the folder of all network namespaces a mount; the last one that leaves
/// takes it along.
fn unmount_netns_dir() {
    let dir = Path::new("/run/netns");
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) {
        // Fails when it is no mount, or when somebody makes a namespace at this moment; both are
        // fine. Once for each mount, as `ip` may have stacked two.
        while umount2(dir, MntFlags::empty()).is_ok() {}
    }
}

fn is_inside(data: &Path, point: &str) -> bool {
    Path::new(point).starts_with(data)
}
