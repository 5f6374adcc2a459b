//! Real sockets: many silent, slow and busy connections, and another client that needs an answer.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::convert::Infallible;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use slipway_listener::{HttpServer, ListenerSettings, OverloadPolicy, ShutdownMode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const BOUND: usize = 64;
/// Far longer than anything here takes, except the listener's timers.
const DEADLINE: Duration = Duration::from_secs(30);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// A port whose `/slow` answers on a signal, and whose `/large` exceeds all buffers between it and
/// its client.
struct Port {
    address: SocketAddr,
    go: Arc<Semaphore>,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Port {
    async fn start(adjust: impl FnOnce(&mut ListenerSettings)) -> Self {
        let mut settings = ListenerSettings {
            max_connections: BOUND,
            header_timeout: DEADLINE * 10,
            idle_timeout: DEADLINE * 10,
            overload_policy: OverloadPolicy::Wait,
            shutdown_mode: ShutdownMode::Drain,
        };
        adjust(&mut settings);
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (socket.local_addr().unwrap(), CancellationToken::new());
        let go = Arc::new(Semaphore::new(0));
        let gate = Arc::clone(&go);
        let make = move |_| {
            let gate = Arc::clone(&gate);
            service_fn(move |request: http::Request<hyper::body::Incoming>| {
                let gate = Arc::clone(&gate);
                async move {
                    let body = match request.uri().path() {
                        "/slow" => {
                            gate.acquire().await.unwrap().forget();
                            Bytes::from("slow")
                        }
                        "/large" => vec![b'x'; 32 << 20].into(),
                        _ => Bytes::from("quick"),
                    };
                    Ok::<_, Infallible>(Response::new(Full::new(body)))
                }
            })
        };
        let server = HttpServer::new(socket, settings, auto::Builder::new(TokioExecutor::new()));
        let ended = tokio::spawn(server.serve(make, stop.clone().cancelled_owned()));
        Self { address, go, stop, ended }
    }

    /// Opens a connection from a chosen address.
    async fn from(&self, last: u8) -> TcpStream {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((IpAddr::from([127, 0, 0, last]), 0).into()).unwrap();
        within(socket.connect(self.address)).await.unwrap()
    }

    async fn crowd(&self, count: usize, last: impl Fn(usize) -> u8, says: &[u8]) -> Vec<TcpStream> {
        let mut crowd = Vec::new();
        for n in 0..count {
            let mut stream = self.from(last(n)).await;
            stream.write_all(says).await.unwrap();
            crowd.push(stream);
        }
        crowd
    }

    /// Checks that a request on a new connection is answered within a second.
    async fn answers(&self, last: u8) {
        let asked = Instant::now();
        let mut stream = self.from(last).await;
        ask(&mut stream, "/quick").await;
        assert_eq!(read_answer(&mut stream).await.as_deref(), Some("quick"));
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
    }
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.expect("took too long")
}

async fn ask(stream: &mut TcpStream, path: &str) {
    // The server may have closed the connection; reading shows that.
    drop(stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await);
}

/// The body of a short answer; `None` when the connection is closed.
async fn read_answer(stream: &mut TcpStream) -> Option<String> {
    let mut read = Vec::new();
    within(async {
        while !read.windows(5).any(|five| five == b"quick" || &five[1..] == b"slow") {
            let mut some = [0; 1024];
            match stream.read(&mut some).await {
                Ok(0) | Err(_) => return None,
                Ok(bytes) => read.extend_from_slice(&some[..bytes]),
            }
        }
        let text = String::from_utf8(read).unwrap();
        Some(text.rsplit_once("\r\n").unwrap().1.to_owned())
    })
    .await
}

/// Whether the server has closed the connection, as known now.
fn is_closed(stream: &TcpStream) -> bool {
    match stream.try_read(&mut [0; 1024]) {
        Ok(bytes) => bytes == 0,
        Err(error) => error.kind() != ErrorKind::WouldBlock,
    }
}

async fn eventually(what: &str, mut met: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !met() {
        assert!(Instant::now() < until, "never happened: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn crowds_keep_nobody_out() {
    let half_head = b"GET / HTTP/1.1\r\nhost: ";
    let whole = b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n";
    for says in [&b""[..], b"P", half_head, PREFACE, whole] {
        // One address, a few, and one per connection.
        for addresses in [1, 4, BOUND * 2] {
            let port = Port::start(|_| {}).await;
            let _crowd = port.crowd(BOUND * 2, |n| 2 + (n % addresses) as u8, says).await;
            for _ in 0..3 {
                port.answers(1).await;
            }
        }
    }
}

#[tokio::test]
async fn requests_in_flight_are_never_closed_by_the_bound() {
    let port = Port::start(|_| {}).await;
    let mut slow = port.from(2).await;
    ask(&mut slow, "/slow").await;
    let mut large = port.from(2).await;
    ask(&mut large, "/large").await;
    // The answer fills all buffers and has left the handler.
    within(large.readable()).await.unwrap();
    let crowd = port.crowd(BOUND * 3, |_| 2, b"").await;
    port.answers(1).await;
    eventually("the crowd is closed but for what has places", || {
        crowd.iter().filter(|stream| is_closed(stream)).count() >= BOUND * 2 - BOUND
    })
    .await;
    port.go.add_permits(1);
    assert_eq!(read_answer(&mut slow).await.as_deref(), Some("slow"));
    let mut bytes = 0;
    let mut some = vec![0; 1 << 20];
    while bytes < 32 << 20 {
        let read = within(large.read(&mut some)).await.unwrap();
        assert_ne!(read, 0, "cut after {bytes}");
        bytes += read;
    }
}

#[tokio::test]
async fn with_requests_everywhere_a_new_one_waits_its_turn() {
    let port = Port::start(|settings| settings.max_connections = 4).await;
    let mut busy = port.crowd(4, |_| 2, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    // From the same address as the crowd: served after the other peer's.
    let mut own = port.crowd(2, |_| 2, b"GET /quick HTTP/1.1\r\nhost: x\r\n\r\n").await;
    let mut other = port.from(1).await;
    ask(&mut other, "/quick").await;
    assert!(timeout(Duration::from_millis(100), other.readable()).await.is_err());
    port.go.add_permits(1);
    assert_eq!(read_answer(&mut other).await.as_deref(), Some("quick"));
    port.go.add_permits(3);
    for stream in &mut busy {
        assert_eq!(read_answer(stream).await.as_deref(), Some("slow"));
    }
    for stream in &mut own {
        assert_eq!(read_answer(stream).await.as_deref(), Some("quick"));
    }
}

#[tokio::test]
async fn a_port_that_must_answer_does_so_when_all_are_busy() {
    let port = Port::start(|settings| settings.overload_policy = OverloadPolicy::Preempt).await;
    let _busy = port.crowd(BOUND, |_| 2, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await;
    port.answers(1).await;
}

#[tokio::test]
async fn a_first_head_has_a_deadline_however_it_comes() {
    let header_timeout = Duration::from_millis(500);
    let port = Port::start(|settings| settings.header_timeout = header_timeout).await;
    let mut slow = port.from(2).await;
    for says in [&b""[..], b"P", b"GET / HTTP/1.1\r\nhost: ", PREFACE] {
        let mut stream = port.from(2).await;
        let begun = Instant::now();
        stream.write_all(says).await.unwrap();
        let mut rest = Vec::new();
        drop(within(stream.read_to_end(&mut rest)).await);
        assert!(
            begun.elapsed() >= header_timeout - Duration::from_millis(100),
            "not before: {says:?}"
        );
    }
    // Sends one byte now and then.
    let mut head = b"GET / HTTP/1.1\r\nhost: ".iter().chain(std::iter::repeat(&b'x'));
    let until = Instant::now() + DEADLINE;
    while !is_closed(&slow) {
        assert!(Instant::now() < until, "a slow head is never closed");
        drop(slow.write_all(&[*head.next().unwrap()]).await);
        sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let port = Port::start(|settings| settings.idle_timeout = Duration::from_millis(300)).await;
    let mut busy = port.from(2).await;
    ask(&mut busy, "/slow").await;
    let mut idle = port.from(2).await;
    ask(&mut idle, "/quick").await;
    assert_eq!(read_answer(&mut idle).await.as_deref(), Some("quick"));
    assert_eq!(within(idle.read(&mut [0; 1])).await.unwrap(), 0);
    assert!(!is_closed(&busy));
    port.go.add_permits(1);
    assert_eq!(read_answer(&mut busy).await.as_deref(), Some("slow"));
    assert_eq!(within(busy.read(&mut [0; 1])).await.unwrap(), 0);
}

#[tokio::test]
async fn a_drain_serves_what_the_kernel_accepted_and_closes_the_silent() {
    // On a single thread the server runs only while the test waits.
    let port = Port::start(|_| {}).await;
    let silent = port.from(2).await;
    let mut slow = port.from(2).await;
    ask(&mut slow, "/slow").await;
    port.answers(1).await;
    let late = std::net::TcpStream::connect(port.address).unwrap();
    port.stop.cancel();
    late.set_nonblocking(true).unwrap();
    let mut late = TcpStream::from_std(late).unwrap();
    ask(&mut late, "/quick").await;
    assert_eq!(read_answer(&mut late).await.as_deref(), Some("quick"));
    eventually("the silent one is closed", || is_closed(&silent)).await;
    assert!(!port.ended.is_finished());
    port.go.add_permits(1);
    assert_eq!(read_answer(&mut slow).await.as_deref(), Some("slow"));
    within(port.ended).await.unwrap();
    assert!(TcpStream::connect(port.address).await.is_err());
}

#[tokio::test]
async fn half_a_head_does_not_keep_a_drain() {
    for says in [&b"P"[..], b"GET / HTTP/1.1\r\nhost: ", PREFACE] {
        let port =
            Port::start(|settings| settings.header_timeout = Duration::from_millis(1500)).await;
        let _half = port.crowd(3, |_| 2, says).await;
        port.answers(1).await;
        port.stop.cancel();
        within(port.ended).await.unwrap();
    }
}

#[tokio::test]
async fn a_port_without_a_drain_ends_at_once() {
    let port = Port::start(|settings| settings.shutdown_mode = ShutdownMode::Abort).await;
    let mut slow = port.from(2).await;
    ask(&mut slow, "/slow").await;
    port.answers(1).await;
    port.stop.cancel();
    within(port.ended).await.unwrap();
    assert_eq!(read_answer(&mut slow).await, None);
}
