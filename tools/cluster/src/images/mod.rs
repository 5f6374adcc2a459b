//! Container images: built from the project's Dockerfiles on bases made of Debian's packages,
//! without any registry.

mod archive;
mod base;
mod catalog;
mod context;
mod docker;

use std::path::{Path, PathBuf};
use std::process::Command;

use catalog::ImageBase;
pub use catalog::{PROJECT_IMAGES, ProjectImage};
pub use context::{ensure_onnx_runtime, plugin_path};
use slipway_provision::packages;

use crate::error::{HarnessError, Result};
use crate::layout::ClusterLayout;
use crate::process::{MOUNT_HOLDER, NodeProcess};
use crate::progress::TimedStep;
use crate::shell;

/// How images are built.
#[derive(Debug, Clone, Copy, Default)]
pub struct ImageOptions {
    /// Use the programs of the last build, without running cargo.
    pub no_cargo: bool,
    /// Build with docker, and leave the images there.
    pub docker: bool,
    /// Build only the bases of Debian packages, so that a later build finds them.
    pub only_bases: bool,
}

/// Builds the images of the project whose contents have changed, and imports those that the cluster
/// lacks. `only` lists short names of images to build; empty means all.
pub async fn build_images(
    layout: &ClusterLayout,
    only: &[String],
    options: ImageOptions,
) -> Result<()> {
    if let Some(unknown) =
        only.iter().find(|name| !PROJECT_IMAGES.iter().any(|image| image.name == name.as_str()))
    {
        let names: Vec<_> = PROJECT_IMAGES.iter().map(|image| image.name).collect();
        return Err(HarnessError::Other(format!(
            "no image is called `{unknown}`; there are {}",
            names.join(", ")
        )));
    }
    let wanted: Vec<&ProjectImage> = PROJECT_IMAGES
        .iter()
        .filter(|image| only.is_empty() || only.iter().any(|name| name == image.name))
        .collect();
    if !options.no_cargo {
        context::cargo_build(layout, &wanted)?;
    }
    if options.docker {
        return wanted.into_iter().try_for_each(|image| docker::build_image(layout, image));
    }
    packages::require_packages(packages::IMAGES)?;
    if options.only_bases {
        let _lock = layout.cache().lock(LOCK)?;
        return wanted.into_iter().try_for_each(|image| match image.base {
            ImageBase::Packages(name, packages) => {
                base::ensure_base(layout, name, packages).map(drop)
            }
            ImageBase::Scratch | ImageBase::Image(_) => Ok(()),
        });
    }
    let archives = build_all(layout, &wanted)?;
    for (image, archive) in wanted.into_iter().zip(archives) {
        link_archive(layout, image, &archive)?;
        if NodeProcess::find_running(layout, MOUNT_HOLDER).is_some() {
            import_changed(layout, image, &archive).await?;
        }
    }
    Ok(())
}

/// The part of the cache that is locked while images are built: all checkouts use the same tags in
/// the storage.
const LOCK: &str = "images";

fn build_all(layout: &ClusterLayout, images: &[&ProjectImage]) -> Result<Vec<PathBuf>> {
    let _lock = layout.cache().lock(LOCK)?;
    images.iter().map(|image| build_archive(layout, image)).collect()
}

/// Creates a link to the archive at the documented path: `target/images/<name>.tar`.
fn link_archive(layout: &ClusterLayout, image: &ProjectImage, archive: &Path) -> Result<()> {
    let dir = layout.root().join("target/images");
    std::fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
    let link = dir.join(format!("{}.tar", image.name));
    slipway_provision::cache::remove_path(&link)?;
    std::os::unix::fs::symlink(archive, &link).map_err(HarnessError::io("link", &link))
}

/// The images that every cluster has from the start: pause and busybox.
pub fn build_basic_images(layout: &ClusterLayout) -> Result<Vec<PathBuf>> {
    build_all(layout, &[&catalog::PAUSE, &catalog::BUSYBOX])
}

/// Imports archives into the cluster's containerd.
pub async fn import_archives(layout: &ClusterLayout, archives: &[PathBuf]) -> Result<()> {
    for archive in archives {
        let mut command = enter_mounts(layout)?;
        command
            .arg(layout.program_path("ctr")?)
            .args(["-n", "k8s.io", "images", "import"])
            .arg(archive);
        shell::run_async(command).await?;
    }
    Ok(())
}

fn build_archive(layout: &ClusterLayout, image: &ProjectImage) -> Result<PathBuf> {
    let base = match image.base {
        ImageBase::Scratch => archive::BaseImage::scratch(),
        ImageBase::Image(base) => {
            archive::base_from_archive(layout, &base.tag(), &build_archive(layout, base)?)?
        }
        ImageBase::Packages(name, packages) => base::ensure_base(layout, name, packages)?,
    };
    let context = context::assemble_context(layout, image)?;
    archive::ensure_archive(layout, image, &context, &base)
}

/// Imports the archives that the cluster lacks. The name of an archive contains the hash of its
/// contents, so a list of imported names is enough.
async fn import_changed(
    layout: &ClusterLayout,
    image: &ProjectImage,
    archive: &Path,
) -> Result<()> {
    let note = layout.data_dir().join("images").join(image.name);
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if std::fs::read_to_string(&note).is_ok_and(|imported| imported == name) {
        return Ok(());
    }
    TimedStep::run_async(
        format!("importing {}", image.tag()),
        import_archives(layout, &[archive.to_path_buf()]),
    )
    .await?;
    let dir = layout.data_dir().join("images");
    std::fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
    std::fs::write(&note, name).map_err(HarnessError::io("write", &note))
}

fn enter_mounts(layout: &ClusterLayout) -> Result<Command> {
    let holder = NodeProcess::find_running(layout, MOUNT_HOLDER)
        .ok_or_else(|| HarnessError::NotUp(layout.name().into()))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", holder.pid)).arg("--");
    command.env("PATH", crate::environment::search_path(layout));
    Ok(command)
}
