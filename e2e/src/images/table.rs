//! The images of the project.

/// On what an image is built.
#[derive(Debug, Clone, Copy)]
pub enum Base {
    /// Nothing: a static program needs no more.
    Scratch,
    /// Another image.
    Image(&'static Image),
    /// A root file system of these Debian packages, under this name.
    Packages(&'static str, &'static [&'static str]),
}

/// A part of a build context.
#[derive(Debug, Clone, Copy)]
pub enum Part {
    /// A program that cargo builds: package and program, stripped.
    Binary(&'static str, &'static str),
    /// A file of this machine's Debian, under another name.
    System(&'static str, &'static str),
    /// A file or folder of the workspace, under another name.
    Workspace(&'static str, &'static str),
    /// A file with this name and text.
    Text(&'static str, &'static str),
    /// A program of another project, as `e2e/tools` pins it.
    Tool(&'static str),
    /// The ONNX Runtime library with its notices.
    OnnxRuntime,
}

impl Part {
    /// Package and program, when cargo builds it.
    pub fn program(&self) -> Option<[&'static str; 2]> {
        match *self {
            Self::Binary(package, program) => Some([package, program]),
            _ => None,
        }
    }
}

/// An image.
#[derive(Debug)]
pub struct Image {
    /// Its short name.
    pub name: &'static str,
    /// Its Dockerfile, relative to the root of the workspace.
    pub dockerfile: &'static str,
    /// What it is built on.
    pub base: Base,
    /// What its build context holds.
    pub parts: &'static [Part],
}

/// What a program that cargo builds needs: the C library, and certificates to download models.
const SLIM: Base = Base::Packages("slim", &["libc6", "libgcc-s1", "libstdc++6", "ca-certificates"]);

/// The container that holds a pod's namespaces; `up` builds it by itself.
pub(super) const PAUSE: Image = Image {
    name: "pause",
    dockerfile: "e2e/images/pause.Dockerfile",
    base: Base::Scratch,
    parts: &[Part::System("/bin/busybox", "busybox")],
};

/// A shell with the usual tools; `up` brings it as well, so that tests of the cluster itself have something to run.
pub(super) const BUSYBOX: Image = Image {
    name: "busybox",
    dockerfile: "e2e/images/busybox.Dockerfile",
    base: Base::Scratch,
    parts: &[
        Part::System("/bin/busybox", "busybox"),
        Part::Text("passwd", "root:x:0:0:root:/:/bin/sh\nnonroot:x:65532:65532:nonroot:/:/bin/sh\n"),
        Part::Text("group", "root:x:0:\nnonroot:x:65532:\n"),
    ],
};

/// The images that `slipway-e2e images` builds.
pub const TABLE: &[Image] = &[
    Image {
        name: "slipway-operator",
        dockerfile: "operator/Dockerfile",
        base: SLIM,
        parts: &[Part::Binary("slipway-operator", "slipway-operator")],
    },
    Image {
        name: "slipway-gateway",
        dockerfile: "gateway/Dockerfile",
        base: SLIM,
        parts: &[Part::Binary("slipway-gateway", "slipway-gateway")],
    },
    Image {
        name: "slipway-runtime",
        dockerfile: "serving-runtime/Dockerfile",
        base: SLIM,
        parts: &[Part::Binary("slipway-runtime", "slipway-runtime"), Part::OnnxRuntime],
    },
    Image {
        name: "slipway-redis",
        dockerfile: "images/redis/Dockerfile",
        base: Base::Packages("redis", &["redis-server"]),
        parts: &[],
    },
    Image {
        name: "slipway-nats",
        dockerfile: "e2e/images/nats.Dockerfile",
        base: Base::Scratch,
        parts: &[Part::Tool("nats-server")],
    },
    Image {
        name: "slipway-prometheus",
        dockerfile: "e2e/images/prometheus.Dockerfile",
        base: Base::Scratch,
        parts: &[Part::Tool("prometheus")],
    },
    Image {
        name: "slipway-loadgen",
        dockerfile: "e2e/Dockerfile.loadgen",
        base: SLIM,
        parts: &[
            Part::Binary("slipway-e2e", "slipway-loadgen"),
            Part::Workspace("examples/digits/heldout.csv", "heldout.csv"),
        ],
    },
    Image {
        name: "slipway-model-store",
        dockerfile: "examples/Dockerfile",
        base: Base::Image(&BUSYBOX),
        parts: &[
            Part::Workspace("examples/digits", "digits"),
            Part::Workspace("examples/bad", "bad"),
            // For promises about time.
            Part::Workspace("serving-runtime/tests/models/slow.onnx", "slow.onnx"),
        ],
    },
];

impl Image {
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
        let mut names: Vec<&str> = TABLE.iter().chain([&PAUSE, &BUSYBOX]).map(|image| image.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    }

    #[test]
    fn the_pause_image_is_the_one_that_containerd_asks_for() {
        assert_eq!(PAUSE.tag(), crate::node::config::PAUSE_IMAGE);
    }
}
