//! Debian packages: installed only when their files are missing, and only by targets that may
//! install packages.

use std::path::Path;
use std::process::Command;

use crate::command;
use crate::error::{ProvisionError, Result};

/// A package, and files that show that it or an equivalent is installed.
#[derive(Debug)]
pub struct DebianPackage {
    name: &'static str,
    files: &'static [&'static str],
}

const fn debian_package(name: &'static str, files: &'static [&'static str]) -> DebianPackage {
    DebianPackage { name, files }
}

const APT_GET: &str = "/usr/bin/apt-get";

/// Packages for the build and the tests without a cluster.
pub const BUILD: &[DebianPackage] = &[
    debian_package("build-essential", &["/usr/bin/cc"]),
    debian_package("git", &["/usr/bin/git"]),
    debian_package("lua5.1", &["/usr/bin/lua5.1"]),
    debian_package("python3-minimal", &["/usr/bin/python3"]),
    debian_package("python3-pip", &["/usr/bin/pip3", "/usr/bin/pip"]),
    debian_package("python3-venv", &["/usr/lib/python3*/ensurepip"]),
    debian_package("redis-server", &["/usr/bin/redis-server"]),
];

/// Packages for running a cluster.
pub const NODE: &[DebianPackage] = &[
    debian_package("runc", &["/usr/sbin/runc", "/usr/bin/runc"]),
    debian_package("containernetworking-plugins", &["/usr/lib/cni/ptp"]),
    debian_package("nftables", &["/usr/sbin/nft"]),
    debian_package("iproute2", &["/usr/sbin/ip", "/sbin/ip"]),
    debian_package("conntrack", &["/usr/sbin/conntrack"]),
    debian_package("busybox-static", &["/bin/busybox"]),
    debian_package("util-linux", &["/usr/bin/nsenter"]),
    debian_package("ca-certificates", &["/etc/ssl/certs/ca-certificates.crt"]),
];

/// Packages for building images.
pub const IMAGES: &[DebianPackage] = &[
    debian_package("buildah", &["/usr/bin/buildah"]),
    debian_package("mmdebstrap", &["/usr/bin/mmdebstrap"]),
    debian_package("busybox-static", &["/bin/busybox"]),
    debian_package("binutils", &["/usr/bin/strip"]),
];

/// Names of the missing packages.
pub fn missing_packages<'a>(
    packages: impl IntoIterator<Item = &'a DebianPackage>,
) -> Vec<&'static str> {
    let mut names: Vec<&str> =
        packages.into_iter().filter(|it| !it.is_present()).map(|it| it.name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Fails if packages are missing, without installing them; the error names them and the command
/// that installs them.
pub fn require_packages<'a>(packages: impl IntoIterator<Item = &'a DebianPackage>) -> Result<()> {
    check_missing(&missing_packages(packages), is_in_path(APT_GET))
}

fn check_missing(missing: &[&str], has_apt: bool) -> Result<()> {
    if missing.is_empty() {
        return Ok(());
    }
    let remedy = if has_apt {
        "`make setup` installs them (by apt-get, with root's rights)"
    } else {
        "there is no apt-get here: install them, or what your system has for them"
    };
    Err(ProvisionError::Other(format!("packages are missing: {}\n{remedy}", missing.join(", "))))
}

/// Installs missing packages, with root rights.
pub fn install_packages<'a>(packages: impl IntoIterator<Item = &'a DebianPackage>) -> Result<()> {
    let missing = missing_packages(packages);
    if missing.is_empty() {
        return Ok(());
    }
    if !is_in_path(APT_GET) {
        return check_missing(&missing, false);
    }
    eprintln!("installing by apt-get, with root's rights: {}", missing.join(", "));
    command::run_command(&mut apt_command("update"))?;
    let mut install = apt_command("install");
    // Without recommended packages: they would install unneeded services of a desktop or server.
    install.args(["--yes", "--no-install-recommends"]).args(&missing);
    command::run_command(&mut install)?;
    stop_services(&missing);
    Ok(())
}

/// Stops the services of installed packages: on a machine with systemd they start on installation,
/// despite RUNLEVEL.
fn stop_services(installed: &[&str]) {
    if Path::new("/run/systemd/system").exists() && installed.contains(&"redis-server") {
        // Without systemd there are no services to stop.
        let _ = command::run_command(privileged_command("systemctl").args([
            "disable",
            "--now",
            "redis-server",
        ]));
    }
}

fn apt_command(verb: &str) -> Command {
    let mut command = privileged_command("apt-get");
    // Another program may hold apt's lock for a while.
    command.args(["--quiet", verb, "-o", "DPkg::Lock::Timeout=300"]);
    command
}

/// Some packages start a service when installed; RUNLEVEL prevents it, because the tests start
/// their own instances.
fn privileged_command(program: &str) -> Command {
    let root = command::run_command(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0");
    let mut command = Command::new(if root { "env" } else { "sudo" });
    command.args(["DEBIAN_FRONTEND=noninteractive", "RUNLEVEL=1", program]);
    command
}

impl DebianPackage {
    fn is_present(&self) -> bool {
        // Programs may be elsewhere in PATH as well, for instance when the user built a newer one.
        self.files.iter().any(|file| pattern_exists(file) || is_in_path(file))
    }
}

/// Whether a file exists; one folder of its path may end in `*`.
fn pattern_exists(file: &str) -> bool {
    let Some((before, after)) = file.split_once('*') else { return Path::new(file).exists() };
    let (dir, prefix) = before
        .rsplit_once('/')
        .map_or(("/", before), |(dir, prefix)| (if dir.is_empty() { "/" } else { dir }, prefix));
    crate::registry_unit::file_names(Path::new(dir)).iter().any(|name| {
        name.starts_with(prefix)
            && Path::new(dir).join(name).join(after.trim_start_matches('/')).exists()
    })
}

/// Whether a program of this name is in PATH.
pub fn is_in_path(file: &str) -> bool {
    let Some(name) = Path::new(file).file_name().filter(|_| file.contains("bin/")) else {
        return false;
    };
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_packages_are_named_once() {
        let nowhere = debian_package("nowhere", &["/nonexistent/file"]);
        let here = debian_package("here", &["/nonexistent/file", "/bin/sh"]);
        assert_eq!(missing_packages([&nowhere, &here, &nowhere]), ["nowhere"]);
    }

    #[test]
    fn what_is_missing_is_named_with_its_remedy() {
        assert!(check_missing(&[], true).is_ok());
        let message =
            |has_apt| check_missing(&["runc", "nftables"], has_apt).unwrap_err().to_string();
        assert!(message(true).contains("runc, nftables") && message(true).contains("make setup"));
        assert!(message(false).contains("runc, nftables") && !message(false).contains("make"));
    }

    #[test]
    fn a_folder_may_be_a_pattern() {
        assert!(
            pattern_exists("/us*/bin")
                && !pattern_exists("/us*/nonexistent")
                && !pattern_exists("/nonexistent*/bin")
        );
    }
}
