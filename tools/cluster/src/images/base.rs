//! Root file systems made of Debian packages.

use std::process::Command;

use sha2::{Digest, Sha256};

use crate::error::{HarnessError, Result};
use crate::images::archive::{self, BaseImage};
use crate::layout::ClusterLayout;
use crate::progress::TimedStep;
use crate::shell;

const SUITE: &str = "bookworm";

/// Does the work of maintainer scripts, which are not run, and removes files that containers do not
/// need. The variant `extract` runs no customize hooks.
const FINISH: &str = r#"
set -e
cd "$1"
mkdir -p etc/ssl/certs tmp
chmod 1777 tmp
if [ -d usr/share/ca-certificates ]; then
    cat usr/share/ca-certificates/mozilla/*.crt >etc/ssl/certs/ca-certificates.crt
fi
echo 'root:x:0:0:root:/:/sbin/nologin
nonroot:x:65532:65532:nonroot:/:/sbin/nologin' >etc/passwd
echo 'root:x:0:
nonroot:x:65532:' >etc/group
rm -rf usr/share/doc usr/share/man usr/share/locale usr/share/lintian var/cache var/log var/lib/apt
"#;

/// The image of these packages; built once for each list of packages.
pub(super) fn ensure_base(
    layout: &ClusterLayout,
    name: &str,
    packages: &[&str],
) -> Result<BaseImage> {
    let key = hex::encode(&Sha256::digest(format!("2 {SUITE} {packages:?} {FINISH}"))[..6]);
    let dir = layout.cache().path("base").join(format!("{name}-{key}"));
    let rootfs = dir.join("rootfs.tar");
    if !rootfs.exists() {
        std::fs::create_dir_all(&dir).map_err(HarnessError::io("create", &dir))?;
        TimedStep::run(format!("making base image {name} of {}", packages.join(", ")), || {
            let partial = dir.join("partial.tar");
            let mut command = Command::new("mmdebstrap");
            command
                .args(["--variant=extract", "--mode=root"])
                .arg(format!("--include={}", packages.join(",")));
            command.arg(format!("--extract-hook={FINISH}")).arg(SUITE).arg(&partial);
            // Files get the same times in every build.
            command.env("SOURCE_DATE_EPOCH", "0");
            shell::run_command(&mut command)?;
            std::fs::rename(&partial, &rootfs).map_err(HarnessError::io("rename", &partial))
        })?;
    }
    archive::base_from_rootfs(layout, &format!("localhost/slipway-base:{name}-{key}"), &rootfs)
}
