//! How models are found, verified and loaded, and how a failure is reported.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use super::support::{Server, affine, digest, model};

/// A web server that counts its requests.
pub(crate) struct Web {
    pub(crate) address: String,
    requests: Arc<AtomicUsize>,
}

impl Web {
    pub(crate) async fn start(
        answer: impl Fn(usize, &Request<Incoming>) -> Response<Full<Bytes>> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (requests, answer) = (Arc::new(AtomicUsize::new(0)), Arc::new(answer));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (counter, answer) = (Arc::clone(&counter), Arc::clone(&answer));
                let service = service_fn(move |request| {
                    let n = counter.fetch_add(1, Ordering::SeqCst);
                    std::future::ready(Ok::<_, Infallible>(answer(n, &request)))
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, requests }
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

pub(crate) fn status(code: u16) -> Response<Full<Bytes>> {
    Response::builder().status(code).body(Full::default()).unwrap()
}

fn content() -> Response<Full<Bytes>> {
    Response::new(Full::new(std::fs::read(model("affine")).unwrap().into()))
}

#[track_caller]
fn fails(server: &mut Server, reason: &str, permanent: bool, part: &str) {
    let failure = server.failure();
    assert_eq!(
        (&failure["reason"], &failure["permanent"]),
        (&reason.into(), &permanent.into()),
        "{failure}"
    );
    assert!(failure["message"].as_str().unwrap().contains(part), "{failure}");
}

#[test]
fn a_pinned_digest_is_verified() {
    let path = model("affine");
    let uri = format!("file://{}", path.display());
    Server::spawn(&uri, &["--model-digest", &digest(&path)], &[]).line("ready");
    let mut server = Server::spawn(&uri, &["--model-digest", &digest(&model("mean"))], &[]);
    fails(&mut server, "DigestMismatch", true, &digest(&path));
}

#[test]
fn what_cannot_be_served_is_told() {
    let mut server = Server::spawn("/nowhere/model.onnx", &[], &[]);
    fails(&mut server, "ModelNotFound", true, "/nowhere/model.onnx");
    let mut server = Server::spawn("ftp://host/model.onnx", &[], &[]);
    fails(&mut server, "ModelNotFound", true, "scheme");
    let script = model("affine").with_file_name("make_models.py");
    let mut server = Server::spawn(&script.display().to_string(), &[], &[]);
    fails(&mut server, "InvalidModel", true, "not a model");
    let mut server = Server::spawn(&model("zipmap").display().to_string(), &[], &[]);
    fails(&mut server, "InvalidModel", true, "zipmap=False");
    let mut server =
        Server::spawn(&model("affine").display().to_string(), &["--max-model-bytes", "10"], &[]);
    fails(&mut server, "InvalidModel", true, "larger than 10 bytes");
    let mut server = Server::spawn(
        &model("affine").display().to_string(),
        &["--onnxruntime", "/nowhere/lib.so"],
        &[],
    );
    fails(&mut server, "LoadFailed", false, "ORT_DYLIB_PATH");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_retried_and_kept() {
    let web = Web::start(|n, _| if n < 2 { status(503) } else { content() }).await;
    let uri = format!("http://{}/m.onnx?token=secret", web.address);
    let kept = tempfile::tempdir().unwrap();
    let args = [
        "--model-digest",
        &digest(&model("affine")),
        "--cache-dir",
        &kept.path().display().to_string(),
    ];
    for _ in 0..2 {
        // The second start finds the file in the cache.
        Server::spawn(&uri, &args, &[]).line("ready");
        assert_eq!(web.count(), 3);
    }
    let names: Vec<_> =
        std::fs::read_dir(kept.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(
        names,
        [digest(&model("affine")).trim_start_matches("sha256:")],
        "and nothing else is left"
    );
}

fn redirect(to: &'static str) -> Response<Full<Bytes>> {
    Response::builder().status(302).header("location", to).body(Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_downloads_are_told_apart() {
    let web = Web::start(|_, request| match request.uri().path() {
        "/missing" => status(404),
        "/forbidden" => status(403),
        "/down" => status(500),
        "/elsewhere" => Response::builder()
            .status(302)
            .header("location", "file:///etc/passwd")
            .body(Full::default())
            .unwrap(),
        "/neighbour" => redirect("http://127.0.0.2:1/m.onnx"),
        "/metadata" => redirect("http://169.254.169.254/latest/meta-data/"),
        "/by-name" => redirect("http://localhost:1/m.onnx"),
        "/loop" => Response::builder()
            .status(302)
            .header("location", "/loop")
            .body(Full::default())
            .unwrap(),
        _ => content(),
    })
    .await;
    let spawn = |path: &str, args: &[&str]| {
        let uri = format!("http://{}{path}?token=secret", web.address);
        Server::spawn(&uri, &[&["--download-attempts", "2"], args].concat(), &[])
    };
    fails(&mut spawn("/missing", &[]), "ModelNotFound", true, "404");
    assert_eq!(web.count(), 1);
    fails(&mut spawn("/forbidden", &[]), "DownloadFailed", true, "403");
    assert_eq!(web.count(), 2);
    fails(&mut spawn("/down", &[]), "DownloadFailed", false, "500");
    assert_eq!(web.count(), 4);
    let mut server = spawn("/elsewhere", &[]);
    let failure = server.failure();
    assert!(
        failure["reason"] == "DownloadFailed" && !failure.to_string().contains("secret"),
        "{failure}"
    );
    fails(&mut spawn("/loop", &[]), "DownloadFailed", true, "redirects");
    for inside in ["/neighbour", "/metadata", "/by-name"] {
        fails(&mut spawn(inside, &[]), "DownloadFailed", inside != "/by-name", "not public");
    }
    fails(&mut spawn("/m", &["--max-model-bytes", "10"]), "InvalidModel", true, "larger");
    let mut server = spawn("/m", &["--model-digest", &digest(&model("mean"))]);
    fails(&mut server, "DigestMismatch", true, &digest(&model("affine")));
    let left = std::fs::read_dir(server.dir.path().join("models")).unwrap().count();
    assert_eq!(left, 0, "a refused download is removed");
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut server =
        Server::spawn(&format!("http://{closed}/m"), &["--download-attempts", "2"], &[]);
    fails(&mut server, "DownloadFailed", false, "the download failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn object_stores_are_read() {
    let web = Web::start(|_, request| match request.uri().path() {
        "/bucket/models/affine.onnx" => content_with_meta(),
        _ => Response::builder()
            .status(404)
            .body(Full::new("<Error><Code>NoSuchKey</Code></Error>".into()))
            .unwrap(),
    })
    .await;
    let endpoint = format!("http://{}", web.address);
    let env = [
        ("AWS_ENDPOINT", endpoint.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "local"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    Server::spawn(
        "s3://bucket/models/affine.onnx",
        &["--model-digest", &digest(&model("affine"))],
        &env,
    )
    .line("ready");
    fails(
        &mut Server::spawn("s3://bucket/models/none.onnx", &[], &env),
        "ModelNotFound",
        true,
        "none.onnx",
    );
}

fn content_with_meta() -> Response<Full<Bytes>> {
    let mut answer = content();
    answer.headers_mut().insert("last-modified", "Tue, 24 Nov 2026 00:00:00 GMT".parse().unwrap());
    answer.headers_mut().insert("etag", "\"1\"".parse().unwrap());
    answer
}

/// The optimised graph is computed once and read by later starts; a damaged file is as good as
/// none.
#[tokio::test(flavor = "multi_thread")]
async fn the_optimised_graph_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let files = || {
        std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect::<Vec<_>>()
    };
    let answer = async || {
        let server = Server::start("affine", &["--workers", "2", "--optimised-dir", path]);
        let (status, answer) = server.infer(&affine(&[[1.0, 2.0]])).await;
        assert_eq!(status, 200, "{answer}");
        answer["outputs"].clone()
    };
    let first = answer().await;
    let [kept] = files().try_into().expect("one file");
    let digest = digest(&model("affine"));
    assert!(
        kept.file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .starts_with(digest.trim_start_matches("sha256:"))
    );
    let written = || kept.metadata().unwrap().modified().unwrap();
    let before = written();
    assert_eq!(answer().await, first);
    assert_eq!(written(), before, "read, not written again");
    std::fs::write(&kept, b"spoilt").unwrap();
    assert_eq!(answer().await, first);
    assert!(std::fs::read(&kept).unwrap().len() > 100 && files().len() == 1, "made again");
    // If the directory is not writable, the model is optimised in memory as usual.
    let server = Server::start("affine", &["--optimised-dir", "/proc/nothing"]);
    assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
}
