//! Debian packages that the machine must have. Only `make setup`, `make demo` and `make test`
//! install them; all other targets report what is missing and end.

use slipway_provision::packages::{self, DebianPackage};

use crate::checkout::MissingArtifact;
use crate::step_runner::{PlannedStep, StepRunner};

const PACKAGES: &str = "Debian packages";

/// The purpose of packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PackageUse {
    /// The build, and tests without a cluster.
    Build,
    /// The build and images.
    Images,
    /// The build, images, and a cluster on this machine.
    Cluster,
}

impl PackageUse {
    /// The packages for the promises. With a foreign cluster, this machine only builds images.
    pub(crate) fn for_cluster(is_foreign: bool) -> Self {
        if is_foreign { Self::Images } else { Self::Cluster }
    }

    fn packages(self) -> impl Iterator<Item = &'static DebianPackage> {
        let (images, node) = match self {
            Self::Build => (false, false),
            Self::Images => (true, false),
            Self::Cluster => (true, true),
        };
        let none: &[DebianPackage] = &[];
        packages::BUILD.iter().chain(if images { packages::IMAGES } else { none }).chain(if node {
            packages::NODE
        } else {
            none
        })
    }
}

/// Fails if packages are missing, with the command that installs them.
pub(crate) fn require_packages(needed_for: PackageUse) -> slipway_provision::Result<()> {
    packages::require_packages(needed_for.packages())
}

/// The missing packages, for the plan of a run that installs them.
pub(crate) fn missing_packages(needed_for: PackageUse) -> Vec<MissingArtifact> {
    let names = packages::missing_packages(needed_for.packages());
    if names.is_empty() {
        return Vec::new();
    }
    let description = format!("Debian packages {}, with root's rights", names.join(", "));
    vec![MissingArtifact { description, seconds: 60 }]
}

/// The step that installs the packages.
pub(crate) fn package_step(missing: &[MissingArtifact]) -> PlannedStep {
    PlannedStep::new(PACKAGES, if missing.is_empty() { 1 } else { 60 })
}

/// Installs missing packages, as a step; returns whether all are installed.
pub(crate) fn install_packages(work: &mut StepRunner, needed_for: PackageUse) -> bool {
    work.run_function(PACKAGES, || {
        packages::install_packages(needed_for.packages()).map_err(|error| error.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(needed_for: PackageUse) -> usize {
        needed_for.packages().count()
    }

    #[test]
    fn each_use_needs_what_the_smaller_one_needs() {
        assert_eq!(count(PackageUse::Build), packages::BUILD.len());
        assert_eq!(count(PackageUse::Images), packages::BUILD.len() + packages::IMAGES.len());
        assert_eq!(
            count(PackageUse::Cluster),
            packages::BUILD.len() + packages::IMAGES.len() + packages::NODE.len()
        );
    }

    #[test]
    fn a_cluster_of_the_users_runs_no_node_here() {
        assert_eq!(PackageUse::for_cluster(true), PackageUse::Images);
        assert_eq!(PackageUse::for_cluster(false), PackageUse::Cluster);
    }
}
