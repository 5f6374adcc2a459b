//! Taking a cluster down, whatever state it is in.

use std::path::Path;

use nix::mount::{MntFlags, umount2};

use crate::cgroup;
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::node::netns;

/// Removes everything that bears the name of the cluster; succeeds when nothing does.
///
/// Processes first: all are in our cgroup, shims and containers included. The last one takes the private mount
/// namespace and with it all mounts along. Then network, cgroups and files can go.
pub fn down(layout: &Layout) -> Result<()> {
    cgroup::kill_all(layout)?;
    netns::delete(layout)?;
    unmount_netns_dir();
    cgroup::remove(layout)?;
    unmount(layout)?;
    let data = layout.data();
    for left in [data, layout.kept_harness(), layout.kept_root()] {
        slipway_provision::cache::remove(&left)?;
    }
    Ok(())
}

/// Whether something bears the name of the cluster.
pub fn exists(layout: &Layout) -> Result<bool> {
    let traces = layout.data().exists() || layout.netns_path().exists() || netns::link_exists(layout);
    Ok(traces || !cgroup::roots(layout)?.is_empty())
}

/// Mounts of the cluster are in its own namespace, so there are none here, unless somebody made one by hand to look at
/// something; removing files would then go through it.
fn unmount(layout: &Layout) -> Result<()> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").map_err(Error::io("read", "/proc/self/mountinfo"))?;
    let data = layout.data();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4)).filter(|point| data_holds(&data, point));
    // In reverse, as later mounts may be inside earlier ones.
    for point in points.collect::<Vec<_>>().into_iter().rev() {
        umount2(point, MntFlags::MNT_DETACH).map_err(std::io::Error::from).map_err(Error::io("unmount", point))?;
    }
    Ok(())
}

/// `ip netns add` makes the folder of all network namespaces a mount; the last one that leaves takes it along.
fn unmount_netns_dir() {
    let dir = Path::new("/run/netns");
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none()) {
        // Fails when it is no mount, or when somebody makes a namespace at this moment; both are fine. Once for each
        // mount, as `ip` may have stacked two.
        while umount2(dir, MntFlags::empty()).is_ok() {}
    }
}

fn data_holds(data: &Path, point: &str) -> bool {
    Path::new(point).starts_with(data)
}
