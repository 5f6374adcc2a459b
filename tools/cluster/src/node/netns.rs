//! The network namespace of a node and its link to the host.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::{HarnessError, Result};
use crate::layout::{ClusterLayout, SERVICE_CIDR};
use crate::{families, shell};

const GONE_DEADLINE: Duration = Duration::from_secs(20);

/// Creates the namespace, the link and the settings that pods need.
pub fn create_netns(layout: &ClusterLayout) -> Result<()> {
    let (netns, link) = (layout.netns_name(), layout.link_name());
    run_ip(&["netns", "add", &netns])?;
    run_ip(&["link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &netns])?;
    run_ip(&["addr", "add", &format!("{}/30", layout.host_ip()), "dev", &link])?;
    run_ip(&["link", "set", &link, "up"])?;
    run_ip(&["-n", &netns, "addr", "add", &format!("{}/30", layout.node_ip()), "dev", "eth0"])?;
    run_ip(&["-n", &netns, "link", "set", "lo", "up"])?;
    run_ip(&["-n", &netns, "link", "set", "eth0", "up"])?;
    // The node itself needs a route before an address is translated. There is no default route:
    // connections to addresses outside fail at once.
    run_ip(&["-n", &netns, "route", "add", SERVICE_CIDR, "dev", "eth0"])?;
    if layout.families().has_ipv6() {
        let inside = |arguments: &[&str]| run_ip(&[&["-n", &netns], arguments].concat());
        run_ip(&["addr", "add", &format!("{}/126", families::HOST_IP), "dev", &link, "nodad"])?;
        inside(&["addr", "add", &format!("{}/126", families::NODE_IP), "dev", "eth0", "nodad"])?;
        inside(&["route", "add", families::SERVICE_CIDR, "dev", "eth0"])?;
        shell::run_command(netns_command(layout).args([
            "sh",
            "-c",
            "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding",
        ]))?;
    }
    // Pods are routed, not bridged, so forwarding is enough. By default the kernel would drop a
    // reply that leaves by another interface than the one of the request, which Service addresses
    // cause.
    let settings =
        "echo 1 >/proc/sys/net/ipv4/ip_forward && echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter";
    shell::run_command(netns_command(layout).args(["sh", "-c", settings])).map(drop)
}

/// Removes the namespace with all its links, addresses and nftables rules.
pub fn delete_netns(layout: &ClusterLayout) -> Result<()> {
    // The link first: its end in the namespace is removed at once with it; the namespace alone may
    // remain for a while.
    if link_exists(layout) {
        run_ip(&["link", "delete", &layout.link_name()])?;
    }
    if layout.netns_path().exists() {
        run_ip(&["netns", "delete", &layout.netns_name()])?;
    }
    crate::wait::until_blocking("link is gone", GONE_DEADLINE, || !link_exists(layout))
}

/// A command that runs its arguments in the network namespace; files are those of the host.
pub fn netns_command(layout: &ClusterLayout) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", layout.netns_path().display())).arg("--");
    command
}

/// Whether the host's end of the link exists.
pub fn link_exists(layout: &ClusterLayout) -> bool {
    Path::new("/sys/class/net").join(layout.link_name()).exists()
}

fn run_ip(arguments: &[&str]) -> Result<()> {
    shell::run_command(Command::new("ip").args(arguments)).map(drop).map_err(|error| match error {
        HarnessError::Command { command, status, output }
            if output.contains("Operation not permitted") =>
        {
            HarnessError::Command {
                command,
                status,
                output: format!("{output}\n(the harness must run as root)"),
            }
        }
        other => other,
    })
}
