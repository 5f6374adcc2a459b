//! Builds images with docker, for a cluster whose nodes are its containers (kind). Dockerfiles and
//! contexts are the same, bases come from a registry.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::error::{HarnessError, Result};
use crate::images::catalog::{ImageBase, ProjectImage};
use crate::images::context;
use crate::layout::ClusterLayout;
use crate::progress::TimedStep;
use crate::shell;

/// The base that the examples' Dockerfile names.
const BUSYBOX: &str = "busybox:1.37";
/// The base for an unknown system.
const DEBIAN: &str = "debian:bookworm-slim";

/// Builds an image under its tag.
pub(super) fn build_image(layout: &ClusterLayout, image: &ProjectImage) -> Result<()> {
    let base = match image.base {
        ImageBase::Scratch => "scratch".into(),
        // Of the project's images only busybox is a base.
        ImageBase::Image(_) => BUSYBOX.into(),
        ImageBase::Packages(name, packages) => build_base(name, packages)?,
    };
    let context = context::assemble_context(layout, image)?;
    TimedStep::run(format!("building {} with docker", image.tag()), || {
        let mut docker = Command::new("docker");
        docker.args([
            "build",
            "--quiet",
            "--tag",
            &image.tag(),
            "--build-arg",
            &format!("BASE={base}"),
            "--file",
        ]);
        shell::run_command(docker.arg(layout.root().join(image.dockerfile)).arg(&context.dir))
            .map(drop)
    })
}

/// An image with these packages, of the same system as this machine: programs that were linked here
/// need its C library.
fn build_base(name: &str, packages: &[&str]) -> Result<String> {
    let tag = format!("slipway-base:{name}");
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let dockerfile = base_dockerfile(&system_image(&release), packages);
    let mut docker = Command::new("docker");
    docker.args(["build", "--quiet", "--tag", &tag, "-"]);
    docker.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let start =
        |source| HarnessError::Start { command: format!("docker build --tag {tag} -"), source };
    let mut child = docker.spawn().map_err(start)?;
    if let Some(mut input) = child.stdin.take() {
        // When docker ends early, its own message is more useful than a broken pipe.
        let _ = input.write_all(dockerfile.as_bytes());
    }
    let output = child.wait_with_output().map_err(start)?;
    if output.status.success() {
        return Ok(tag);
    }
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(HarnessError::Command {
        command: shell::command_line(&docker),
        status: output.status.to_string(),
        output: message,
    })
}

fn base_dockerfile(system: &str, packages: &[&str]) -> String {
    format!(
        "FROM {system}\nRUN apt-get update && apt-get install --yes --no-install-recommends {} && rm -rf /var/lib/apt/lists/*\n",
        packages.join(" ")
    )
}

/// The image of a system, by its `/etc/os-release`.
fn system_image(release: &str) -> String {
    let field = |name: &str| {
        let value = release.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
        value.unwrap_or_default().trim_matches('"').to_owned()
    };
    match (field("ID").as_str(), field("VERSION_ID"), field("VERSION_CODENAME")) {
        ("debian", _, codename) if !codename.is_empty() => format!("debian:{codename}-slim"),
        ("ubuntu", version, _) if !version.is_empty() => format!("ubuntu:{version}"),
        _ => DEBIAN.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bases_are_of_the_system_that_programs_were_linked_on() {
        assert_eq!(system_image("ID=debian\nVERSION_CODENAME=bookworm\n"), "debian:bookworm-slim");
        assert_eq!(
            system_image("NAME=\"Ubuntu\"\nVERSION_ID=\"24.04\"\nID=ubuntu\n"),
            "ubuntu:24.04"
        );
        assert_eq!(system_image("ID=arch\n"), DEBIAN);
        assert!(
            base_dockerfile("ubuntu:24.04", &["libc6", "redis-server"])
                .contains("libc6 redis-server &&")
        );
    }
}
