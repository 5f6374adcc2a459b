//! Container images: built from the project's Dockerfiles on bases made of Debian's packages, without any registry.

mod archive;
mod base;
mod context;
mod docker;
mod table;

use std::path::{Path, PathBuf};
use std::process::Command;

pub use context::{onnx_runtime, plugin};
use table::Base;
pub use table::{Image, TABLE};

use slipway_provision::packages;

use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::process::{HOLDER, Process};
use crate::progress::Step;
use crate::shell;

/// How images are built.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Take programs as they were built last, without asking cargo.
    pub no_cargo: bool,
    /// Build with docker, and leave the images there.
    pub docker: bool,
    /// Make only the bases of Debian packages, so that a later build finds them.
    pub only_bases: bool,
}

/// Builds the images of the project whose contents have changed, and imports into the cluster what it has not got.
/// `only` names images to build, by their short names; empty means all.
pub async fn images(layout: &Layout, only: &[String], options: Options) -> Result<()> {
    if let Some(unknown) = only.iter().find(|name| !TABLE.iter().any(|image| image.name == name.as_str())) {
        let names: Vec<_> = TABLE.iter().map(|image| image.name).collect();
        return Err(Error::Other(format!("no image is called `{unknown}`; there are {}", names.join(", "))));
    }
    let wanted: Vec<&Image> =
        TABLE.iter().filter(|image| only.is_empty() || only.iter().any(|name| name == image.name)).collect();
    if !options.no_cargo {
        context::cargo_build(layout, &wanted)?;
    }
    if options.docker {
        return wanted.into_iter().try_for_each(|image| docker::build(layout, image));
    }
    packages::ensure(packages::IMAGES)?;
    if options.only_bases {
        let _lock = layout.cache().lock(LOCK)?;
        return wanted.into_iter().try_for_each(|image| match image.base {
            Base::Packages(name, packages) => base::ensure(layout, name, packages).map(drop),
            Base::Scratch | Base::Image(_) => Ok(()),
        });
    }
    let archives = build_all(layout, &wanted)?;
    for (image, archive) in wanted.into_iter().zip(archives) {
        publish(layout, image, &archive)?;
        if Process::read(layout, HOLDER).is_some() {
            import_changed(layout, image, &archive).await?;
        }
    }
    Ok(())
}

/// The part of the cache that is locked while images are built: tags in the storage are the same for all checkouts.
const LOCK: &str = "images";

fn build_all(layout: &Layout, images: &[&Image]) -> Result<Vec<PathBuf>> {
    let _lock = layout.cache().lock(LOCK)?;
    images.iter().map(|image| build(layout, image)).collect()
}

/// Puts a link to the archive where people look for it: `target/images/<name>.tar`.
fn publish(layout: &Layout, image: &Image, archive: &Path) -> Result<()> {
    let dir = layout.root().join("target/images");
    std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    let link = dir.join(format!("{}.tar", image.name));
    slipway_provision::cache::remove(&link)?;
    std::os::unix::fs::symlink(archive, &link).map_err(Error::io("link", &link))
}

/// The images that every cluster has from the start: pause, and busybox.
pub fn basic(layout: &Layout) -> Result<Vec<PathBuf>> {
    build_all(layout, &[&table::PAUSE, &table::BUSYBOX])
}

/// Imports archives into the cluster's containerd.
pub async fn import(layout: &Layout, archives: &[PathBuf]) -> Result<()> {
    for archive in archives {
        let mut command = enter_mounts(layout)?;
        command.arg(layout.program("ctr")?).args(["-n", "k8s.io", "images", "import"]).arg(archive);
        shell::run_async(command).await?;
    }
    Ok(())
}

fn build(layout: &Layout, image: &Image) -> Result<PathBuf> {
    let base = match image.base {
        Base::Scratch => archive::BaseImage::scratch(),
        Base::Image(base) => archive::loaded(layout, &base.tag(), &build(layout, base)?)?,
        Base::Packages(name, packages) => base::ensure(layout, name, packages)?,
    };
    let context = context::assemble(layout, image)?;
    archive::ensure(layout, image, &context, &base)
}

/// The name of an archive holds the hash of what is in it, so a note of it tells whether the cluster has it.
async fn import_changed(layout: &Layout, image: &Image, archive: &Path) -> Result<()> {
    let note = layout.data().join("images").join(image.name);
    let name = archive.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if std::fs::read_to_string(&note).is_ok_and(|imported| imported == name) {
        return Ok(());
    }
    Step::wait(format!("importing {}", image.tag()), import(layout, &[archive.to_path_buf()])).await?;
    let dir = layout.data().join("images");
    std::fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
    std::fs::write(&note, name).map_err(Error::io("write", &note))
}

fn enter_mounts(layout: &Layout) -> Result<Command> {
    let holder = Process::read(layout, HOLDER).ok_or_else(|| Error::NotUp(layout.name().into()))?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--mount=/proc/{}/ns/mnt", holder.pid)).arg("--");
    command.env("PATH", crate::environment::search_path(layout));
    Ok(command)
}
