//! The images of the project.

/// The base of an image.
#[derive(Debug, Clone, Copy)]
pub enum ImageBase {
    /// No base: enough for a static program.
    Scratch,
    /// Another image of the project.
    Image(&'static ProjectImage),
    /// A root file system of these Debian packages, under this name.
    Packages(&'static str, &'static [&'static str]),
}

/// A part of a build context.
#[derive(Debug, Clone, Copy)]
pub enum ContextPart {
    /// A program that cargo builds: package and program, stripped.
    Binary(&'static str, &'static str),
    /// A file of this machine's Debian, under another name.
    System(&'static str, &'static str),
    /// A file or folder of the workspace, under another name.
    Workspace(&'static str, &'static str),
    /// A file with this name and text.
    Text(&'static str, &'static str),
    /// A program of another project, pinned in `e2e/tools`.
    Tool(&'static str),
    /// The ONNX Runtime library with its notices.
    OnnxRuntime,
}

impl ContextPart {
    /// Package and program, when cargo builds it.
    pub fn cargo_program(&self) -> Option<[&'static str; 2]> {
        match *self {
            Self::Binary(package, program) => Some([package, program]),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub struct ProjectImage {
    pub name: &'static str,
    /// Its Dockerfile, relative to the root of the workspace.
    pub dockerfile: &'static str,
    pub base: ImageBase,
    /// The contents of its build context.
    pub parts: &'static [ContextPart],
}

/// The base of programs that cargo builds: the C library, and certificates to download models.
const SLIM: ImageBase =
    ImageBase::Packages("slim", &["libc6", "libgcc-s1", "libstdc++6", "ca-certificates"]);

/// The container that holds a pod's namespaces; `up` builds it.
pub(super) const PAUSE: ProjectImage = ProjectImage {
    name: "pause",
    dockerfile: "tools/cluster/images/pause.Dockerfile",
    base: ImageBase::Scratch,
    parts: &[ContextPart::System("/bin/busybox", "busybox")],
};

/// A shell with the usual tools; `up` builds it as well, so that tests of the cluster itself have a
/// program to run.
pub(super) const BUSYBOX: ProjectImage = ProjectImage {
    name: "busybox",
    dockerfile: "tools/cluster/images/busybox.Dockerfile",
    base: ImageBase::Scratch,
    parts: &[
        ContextPart::System("/bin/busybox", "busybox"),
        ContextPart::Text(
            "passwd",
            "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n",
        ),
        ContextPart::Text("group", "root:x:0:\nnonroot:x:65532:\n"),
    ],
};

/// The images that `slipway-e2e images` builds.
pub const PROJECT_IMAGES: &[ProjectImage] = &[
    ProjectImage {
        name: "slipway-operator",
        dockerfile: "operator/Dockerfile",
        base: SLIM,
        parts: &[ContextPart::Binary("slipway-operator", "slipway-operator")],
    },
    ProjectImage {
        name: "slipway-gateway",
        dockerfile: "gateway/Dockerfile",
        base: SLIM,
        parts: &[ContextPart::Binary("slipway-gateway", "slipway-gateway")],
    },
    ProjectImage {
        name: "slipway-runtime",
        dockerfile: "serving-runtime/Dockerfile",
        base: SLIM,
        parts: &[
            ContextPart::Binary("slipway-runtime", "slipway-runtime"),
            ContextPart::OnnxRuntime,
        ],
    },
    ProjectImage {
        name: "slipway-redis",
        dockerfile: "images/redis/Dockerfile",
        base: ImageBase::Packages("redis", &["redis-server"]),
        parts: &[],
    },
    ProjectImage {
        name: "slipway-nats",
        dockerfile: "tools/cluster/images/nats.Dockerfile",
        base: ImageBase::Scratch,
        parts: &[ContextPart::Tool("nats-server")],
    },
    ProjectImage {
        name: "slipway-prometheus",
        dockerfile: "tools/cluster/images/prometheus.Dockerfile",
        base: ImageBase::Scratch,
        parts: &[ContextPart::Tool("prometheus")],
    },
    ProjectImage {
        name: "slipway-loadgen",
        dockerfile: "tools/loadgen/Dockerfile",
        base: SLIM,
        parts: &[
            ContextPart::Binary("slipway-loadgen", "slipway-loadgen"),
            ContextPart::Workspace("examples/digits/heldout.csv", "heldout.csv"),
        ],
    },
    ProjectImage {
        name: "slipway-model-store",
        dockerfile: "examples/Dockerfile",
        base: ImageBase::Image(&BUSYBOX),
        parts: &[
            ContextPart::Workspace("examples/digits", "digits"),
            ContextPart::Workspace("examples/bad", "bad"),
            // For promises about time.
            ContextPart::Workspace("serving-runtime/tests/models/slow.onnx", "slow.onnx"),
        ],
    },
];

impl ProjectImage {
    /// The full name under which pods find it.
    pub fn tag(&self) -> String {
        format!("docker.io/slipway/{}:dev", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique() {
        let mut names: Vec<&str> =
            PROJECT_IMAGES.iter().chain([&PAUSE, &BUSYBOX]).map(|image| image.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_pause_image_is_the_one_that_containerd_asks_for() {
        assert_eq!(PAUSE.tag(), crate::node::config::PAUSE_IMAGE);
    }
}
