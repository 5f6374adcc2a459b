//! Builds images with buildah, in a separate storage, into archives for `ctr images import`.

use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use crate::error::{HarnessError, Result};
use crate::images::catalog::ProjectImage;
use crate::images::context::BuildContext;
use crate::layout::ClusterLayout;
use crate::progress::TimedStep;
use crate::shell;

/// A base image in the storage.
pub(super) struct BaseImage {
    /// The argument of `FROM`.
    reference: String,
    /// Changes with the image's contents.
    key: String,
}

impl BaseImage {
    /// The empty image.
    pub(super) fn scratch() -> Self {
        Self { reference: "scratch".into(), key: "scratch".into() }
    }
}

/// The archive of an image; built only when its contents, its Dockerfile or its base have changed.
pub(super) fn ensure_archive(
    layout: &ClusterLayout,
    image: &ProjectImage,
    context: &BuildContext,
    base: &BaseImage,
) -> Result<PathBuf> {
    let dockerfile = layout.root().join(image.dockerfile);
    let text = std::fs::read(&dockerfile).map_err(HarnessError::io("read", &dockerfile))?;
    let digest = Sha256::new()
        .chain_update(context.hash)
        .chain_update(&text)
        .chain_update(&base.key)
        .finalize();
    let dir = layout.cache().path("images");
    let archive = dir.join(format!("{}-{}.tar", image.name, hex::encode(&digest[..8])));
    if archive.exists() {
        touch_archive(&archive)?;
        return Ok(archive);
    }
    std::fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
    TimedStep::run(format!("building {}", image.tag()), || {
        let mut build = buildah_command(layout, "build");
        build.args(["--pull-never", "--timestamp", "0", "--tag", &image.tag()]);
        build
            .arg(format!("--build-arg=BASE={}", base.reference))
            .arg("--file")
            .arg(&dockerfile)
            .arg(&context.dir);
        shell::run_command(&mut build)?;
        remove_old_archives(&dir, image.name)?;
        push_archive(layout, &image.tag(), &archive)?;
        // Former contents of the tag.
        shell::run_command(buildah_command(layout, "rmi").args(["--prune"])).map(drop)
    })?;
    Ok(archive)
}

/// An image that was built before, for use as a base.
pub(super) fn base_from_archive(
    layout: &ClusterLayout,
    tag: &str,
    archive: &Path,
) -> Result<BaseImage> {
    if !has_image(layout, tag) {
        // The cache of archives may have outlived the storage.
        shell::run_command(
            buildah_command(layout, "pull").arg(format!("oci-archive:{}", archive.display())),
        )?;
    }
    let key = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(BaseImage { reference: tag.into(), key })
}

/// An image that consists of this root file system; its name must change with its contents.
pub(super) fn base_from_rootfs(
    layout: &ClusterLayout,
    reference: &str,
    rootfs: &Path,
) -> Result<BaseImage> {
    if !has_image(layout, reference) {
        TimedStep::run(format!("building {reference}"), || {
            let container = shell::run_command(buildah_command(layout, "from").arg("scratch"))?
                .trim()
                .to_string();
            shell::run_command(
                buildah_command(layout, "add").arg("--quiet").arg(&container).arg(rootfs).arg("/"),
            )?;
            shell::run_command(buildah_command(layout, "commit").args([
                "--quiet",
                "--rm",
                "--timestamp",
                "0",
                &container,
                reference,
            ]))
        })?;
    }
    Ok(BaseImage { reference: reference.into(), key: reference.into() })
}

fn push_archive(layout: &ClusterLayout, tag: &str, archive: &Path) -> Result<()> {
    // Written to another name and renamed, so that a half-written archive is never imported.
    let partial = archive.with_extension("partial");
    let mut push = buildah_command(layout, "push");
    // Compression takes longer than all other steps, and saves only disk space.
    push.args(["--quiet", "--disable-compression", tag])
        .arg(format!("oci-archive:{}:{tag}", partial.display()));
    shell::run_command(&mut push)?;
    std::fs::rename(&partial, archive).map_err(HarnessError::io("rename", &partial))
}

/// Removes archives of an image except the few that were used last: other checkouts have other
/// contents.
fn remove_old_archives(dir: &Path, name: &str) -> Result<()> {
    const KEPT: usize = 3;
    let mut former = Vec::new();
    for entry in std::fs::read_dir(dir)
        .map_err(HarnessError::io("list", dir))?
        .filter_map(|entry| entry.ok())
    {
        let file = entry.file_name().to_string_lossy().into_owned();
        let hash =
            file.strip_prefix(name).and_then(|rest| rest.strip_prefix('-')?.split('.').next());
        if hash.is_some_and(|hash| {
            hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit())
        }) {
            let used = entry
                .metadata()
                .and_then(|it| it.modified())
                .map_err(HarnessError::io("read", entry.path()))?;
            former.push((used, entry.path()));
        }
    }
    former.sort();
    let surplus = former.len().saturating_sub(KEPT);
    former.iter().take(surplus).try_for_each(|(_, path)| {
        std::fs::remove_file(path).map_err(HarnessError::io("remove", path))
    })
}

fn touch_archive(archive: &Path) -> Result<()> {
    let file = std::fs::File::options()
        .append(true)
        .open(archive)
        .map_err(HarnessError::io("open", archive))?;
    file.set_modified(std::time::SystemTime::now())
        .map_err(HarnessError::io("set the time of", archive))
}

fn has_image(layout: &ClusterLayout, reference: &str) -> bool {
    shell::succeeds(buildah_command(layout, "inspect").args(["--type", "image", reference]))
}

fn storage_dir(layout: &ClusterLayout) -> PathBuf {
    layout.cache().path("buildah")
}

/// buildah in a separate mount namespace, where a folder of the cache replaces `/var/lib`: buildah
/// keeps files there besides the configured storage, and mounts that it leaves when killed end with
/// the namespace.
fn buildah_command(layout: &ClusterLayout, verb: &str) -> Command {
    let dir = storage_dir(layout);
    let script = r#"set -e
        mkdir -p "$0/lib" "$0/run"
        mount --no-mtab --bind "$0/lib" /var/lib
        exec buildah --root "$0/lib/images" --runroot "$0/run" --storage-driver vfs "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script]).arg(dir).arg(verb);
    // The only way to run a step of a Dockerfile that works in any sandbox.
    command.env("BUILDAH_ISOLATION", "chroot");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_of_the_same_image_that_were_used_last_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let names: Vec<String> =
            (0..5).map(|number| format!("a-000000000000000{number}.tar")).collect();
        for file in
            names.iter().map(String::as_str).chain(["a-b-0123456789abcdef.tar", "a-note.txt"])
        {
            std::fs::write(dir.path().join(file), "").unwrap();
        }
        let ages = [10, 50, 40, 30, 20];
        for (name, age) in names.iter().zip(ages) {
            let file = std::fs::File::options().append(true).open(dir.path().join(name)).unwrap();
            file.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(age))
                .unwrap();
        }
        remove_old_archives(dir.path(), "a").unwrap();
        let left: Vec<bool> = names.iter().map(|name| dir.path().join(name).exists()).collect();
        assert_eq!(left, [true, false, false, true, true]);
        assert!(
            dir.path().join("a-b-0123456789abcdef.tar").exists()
                && dir.path().join("a-note.txt").exists()
        );
    }
}
