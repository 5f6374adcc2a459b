//! The network namespace of a node and its link to the host.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::families;
use crate::layout::{Layout, SERVICE_CIDR};
use crate::shell;

const GONE_DEADLINE: Duration = Duration::from_secs(20);

/// Makes the namespace, the link and the settings that pods need.
pub fn create(layout: &Layout) -> Result<()> {
    let (netns, link) = (layout.netns(), layout.link());
    ip(&["netns", "add", &netns])?;
    ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &netns])?;
    ip(&["addr", "add", &format!("{}/30", layout.host_ip()), "dev", &link])?;
    ip(&["link", "set", &link, "up"])?;
    ip(&["-n", &netns, "addr", "add", &format!("{}/30", layout.node_ip()), "dev", "eth0"])?;
    ip(&["-n", &netns, "link", "set", "lo", "up"])?;
    ip(&["-n", &netns, "link", "set", "eth0", "up"])?;
    // The node itself needs a route before an address is translated. There is no default route: what asks for the world
    // outside learns at once that it is not there.
    ip(&["-n", &netns, "route", "add", SERVICE_CIDR, "dev", "eth0"])?;
    if layout.families().has_ipv6() {
        let inside = |arguments: &[&str]| ip(&[&["-n", &netns], arguments].concat());
        ip(&["addr", "add", &format!("{}/126", families::HOST_IP), "dev", &link, "nodad"])?;
        inside(&["addr", "add", &format!("{}/126", families::NODE_IP), "dev", "eth0", "nodad"])?;
        inside(&["route", "add", families::SERVICE_CIDR, "dev", "eth0"])?;
        shell::run(enter(layout).args(["sh", "-c", "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding"]))?;
    }
    // Pods are routed, not bridged, so forwarding is all they need. The kernel would otherwise refuse a reply that
    // leaves by another interface than the request came in, which Service addresses cause.
    let settings = "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter";
    shell::run(enter(layout).args(["sh", "-c", settings])).map(drop)
}

/// Removes the namespace with all links, addresses and nftables rules in it.
pub fn delete(layout: &Layout) -> Result<()> {
    // The link first: its end in the namespace goes with it, at once; the namespace alone may linger a while.
    if link_exists(layout) {
        ip(&["link", "delete", &layout.link()])?;
    }
    if layout.netns_path().exists() {
        ip(&["netns", "delete", &layout.netns()])?;
    }
    crate::wait::until_blocking("link is gone", GONE_DEADLINE, || !link_exists(layout))
}

/// A command that runs what follows in the namespace: the network only, files stay the host's.
pub fn enter(layout: &Layout) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", layout.netns_path().display())).arg("--");
    command
}

/// Whether the host's end of the link is there.
pub fn link_exists(layout: &Layout) -> bool {
    Path::new("/sys/class/net").join(layout.link()).exists()
}

fn ip(arguments: &[&str]) -> Result<()> {
    shell::run(Command::new("ip").args(arguments)).map(drop).map_err(|error| match error {
        Error::Command { command, status, output } if output.contains("Operation not permitted") => {
            Error::Command { command, status, output: format!("{output}\n(the harness must run as root)") }
        }
        other => other,
    })
}
