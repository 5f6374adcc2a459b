//! Debian packages: installed only when something they bring is missing.

use std::path::Path;
use std::process::Command;

use crate::error::Result;
use crate::progress::Step;
use crate::shell;

/// A package and a file that shows that it, or an equivalent, is there.
struct Package {
    name: &'static str,
    files: &'static [&'static str],
}

const fn package(name: &'static str, files: &'static [&'static str]) -> Package {
    Package { name, files }
}

/// What running a cluster needs.
const NODE: &[Package] = &[
    package("runc", &["/usr/sbin/runc", "/usr/bin/runc"]),
    package("containernetworking-plugins", &["/usr/lib/cni/ptp"]),
    package("nftables", &["/usr/sbin/nft"]),
    package("iproute2", &["/usr/sbin/ip", "/sbin/ip"]),
    package("conntrack", &["/usr/sbin/conntrack"]),
    package("busybox-static", &["/bin/busybox"]),
    package("util-linux", &["/usr/bin/nsenter"]),
    package("ca-certificates", &["/etc/ssl/certs/ca-certificates.crt"]),
];

/// What building images needs.
const IMAGES: &[Package] = &[
    package("buildah", &["/usr/bin/buildah"]),
    package("mmdebstrap", &["/usr/bin/mmdebstrap"]),
    package("unzip", &["/usr/bin/unzip"]),
    package("busybox-static", &["/bin/busybox"]),
    package("python3-pip", &["/usr/bin/pip3", "/usr/bin/pip"]),
    package("binutils", &["/usr/bin/strip"]),
];

/// What the tests themselves need.
const TESTS: &[Package] = &[package("redis-server", &["/usr/bin/redis-server"])];

/// Installs what running a cluster and its tests need.
pub fn ensure_node() -> Result<()> {
    ensure(NODE.iter().chain(TESTS))
}

/// Installs what building images needs.
pub fn ensure_images() -> Result<()> {
    ensure(IMAGES.iter())
}

fn ensure<'a>(packages: impl Iterator<Item = &'a Package>) -> Result<()> {
    let missing: Vec<&str> = packages.filter(|package| !package.present()).map(|package| package.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Step::run(format!("installing {}", missing.join(", ")), || {
        shell::run(&mut apt("update"))?;
        let mut install = apt("install");
        // Without recommendations: they would bring services of a desktop or server that nobody asked for.
        install.args(["--yes", "--no-install-recommends"]).args(&missing);
        // Some of these packages start a service when installed; the tests start their own instead.
        install.env("RUNLEVEL", "1");
        shell::run(&mut install)?;
        stop_services(&missing);
        Ok(())
    })
}

/// On a machine that runs systemd a package's service starts with it, whatever RUNLEVEL says.
fn stop_services(installed: &[&str]) {
    if !Path::new("/run/systemd/system").exists() {
        return;
    }
    if installed.contains(&"redis-server") {
        shell::succeeds(Command::new("systemctl").args(["disable", "--now", "redis-server"]));
    }
}

fn apt(verb: &str) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["--quiet", verb]).env("DEBIAN_FRONTEND", "noninteractive");
    command
}

impl Package {
    fn present(&self) -> bool {
        // Programs may be elsewhere in PATH as well, for instance when the user built a newer one.
        self.files.iter().any(|file| Path::new(file).exists() || in_path(file))
    }
}

fn in_path(file: &str) -> bool {
    let Some(name) = Path::new(file).file_name().filter(|_| file.contains("bin/")) else { return false };
    std::env::var_os("PATH").is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()))
}
