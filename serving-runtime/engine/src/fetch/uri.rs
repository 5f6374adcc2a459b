//! Model URIs.

use std::fmt;
use std::path::{Component, Path, PathBuf};

use url::Url;

use crate::error::{LoadError, LoadErrorReason};

/// The location of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A path on a file system.
    Path(PathBuf),
    /// A URL of a web server.
    Http(Url),
    /// A URL of an object store.
    Store(Url),
}

impl ModelSource {
    /// Parses a URI. `volume_root` is the directory where `pvc://claim/path` is mounted.
    pub fn parse(uri: &str, volume_root: &Path) -> Result<Self, LoadError> {
        let wrong = |why: &str| {
            LoadError::permanent(LoadErrorReason::ModelNotFound, format!("model URI {uri:?} {why}"))
        };
        if uri.starts_with('/') {
            return Ok(Self::Path(uri.into()));
        }
        let (scheme, rest) =
            uri.split_once("://").ok_or_else(|| wrong("is neither an absolute path nor a URI"))?;
        match scheme {
            "file" if rest.starts_with('/') => Ok(Self::Path(rest.into())),
            "file" => Err(wrong("must have three slashes: file:///path")),
            "pvc" => {
                let path = Path::new(rest);
                // A claim's path must stay inside its mount.
                let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
                if plain && path.components().count() >= 2 {
                    Ok(Self::Path(volume_root.join(path)))
                } else {
                    Err(wrong("must be pvc://<claim>/<path>"))
                }
            }
            "http" | "https" => {
                Url::parse(uri).map(Self::Http).map_err(|e| wrong(&format!("is no URL: {e}")))
            }
            "s3" | "gs" | "az" => {
                let url = Url::parse(uri).map_err(|e| wrong(&format!("is no URL: {e}")))?;
                if url.host_str().is_none_or(str::is_empty) || url.path().len() < 2 {
                    return Err(wrong("must be <scheme>://<bucket>/<key>"));
                }
                Ok(Self::Store(url))
            }
            _ => Err(wrong(
                "has a scheme that we do not read; use file, pvc, http, https, s3, gs or az",
            )),
        }
    }
}

impl ModelSource {
    /// The location of the file at `path`, relative to the directory of this one. The query of a
    /// URL is kept, because it may hold the credentials.
    pub(super) fn sibling(&self, path: &str) -> Self {
        let beside = |url: &Url| {
            let mut url = url.clone();
            // HTTP and object store URLs always have a path, so this never fails.
            if let Ok(mut segments) = url.path_segments_mut() {
                segments.pop().extend(path.split('/'));
            }
            url
        };
        match self {
            Self::Path(file) => Self::Path(file.parent().unwrap_or(Path::new("/")).join(path)),
            Self::Http(url) => Self::Http(beside(url)),
            Self::Store(url) => Self::Store(beside(url)),
        }
    }
}

/// Omits user, password and query, which may hold secrets.
impl fmt::Display for ModelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Http(url) | Self::Store(url) => {
                write!(f, "{}://{}", url.scheme(), url.host_str().unwrap_or_default())?;
                if let Some(port) = url.port() {
                    write!(f, ":{port}")?;
                }
                f.write_str(url.path())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(uri: &str) -> Result<String, (LoadErrorReason, bool)> {
        ModelSource::parse(uri, Path::new("/mnt/models"))
            .map(|s| s.to_string())
            .map_err(|e| (e.reason, e.permanent))
    }

    #[test]
    fn what_lies_beside() {
        for (uri, path, want) in [
            ("https://h/a/m.onnx?sig=s", "w/b 1.bin", "https://h/a/w/b%201.bin?sig=s"),
            ("https://h/m.onnx", "m.onnx.data", "https://h/m.onnx.data"),
            ("s3://bucket/k/m.onnx", "m.data", "s3://bucket/k/m.data"),
        ] {
            let (ModelSource::Http(url) | ModelSource::Store(url)) =
                ModelSource::parse(uri, Path::new("/")).unwrap().sibling(path)
            else {
                panic!("{uri}")
            };
            assert_eq!(url.as_str(), want);
        }
        assert_eq!(
            ModelSource::parse("/a/m.onnx", Path::new("/")).unwrap().sibling("w").to_string(),
            "/a/w"
        );
    }

    #[test]
    fn every_scheme() {
        assert_eq!(parse("/a/b.onnx").unwrap(), "/a/b.onnx");
        assert_eq!(parse("file:///a/b.onnx").unwrap(), "/a/b.onnx");
        assert_eq!(parse("pvc://claim/a/b.onnx").unwrap(), "/mnt/models/claim/a/b.onnx");
        assert_eq!(
            parse("https://user:secret@example.com:8443/m.onnx?sig=secret").unwrap(),
            "https://example.com:8443/m.onnx"
        );
        assert_eq!(parse("s3://bucket/key").unwrap(), "s3://bucket/key");
        for bad in [
            "a.onnx",
            "file://a",
            "pvc://claim",
            "pvc://claim/../../etc",
            "ftp://h/m",
            "s3://bucket",
            "s3:///key",
            "",
        ] {
            assert_eq!(parse(bad), Err((LoadErrorReason::ModelNotFound, true)), "{bad}");
        }
    }
}
