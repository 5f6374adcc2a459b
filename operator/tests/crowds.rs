//! Many connections that send nothing, or that never read their answer, to the admin server.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use slipway_operator::process::admin::{self, OperatorHealth};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(30);

async fn start() -> (SocketAddr, CancellationToken, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
    let health = OperatorHealth::new(Arc::default(), Arc::default(), Arc::default());
    (address, stop.clone(), tokio::spawn(admin::serve_admin(listener, health, stop)))
}

/// Opens connections from a source address of their own; each sends `says` and nothing more.
async fn crowd(to: SocketAddr, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let mut crowd = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = timeout(DEADLINE, socket.connect(to)).await.unwrap().unwrap();
        stream.write_all(says).await.unwrap();
        crowd.push(stream);
    }
    crowd
}

/// The first line of an answer, within a second.
async fn get(from: SocketAddr, path: &str) -> String {
    let answered = timeout(Duration::from_secs(1), async {
        let mut stream = TcpStream::connect(from).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    });
    answered
        .await
        .unwrap_or_else(|_| panic!("no answer to {path} within a second"))
        .lines()
        .next()
        .unwrap()
        .to_owned()
}

/// Whether the server closes the connection before the deadline.
async fn is_closed_in_time(stream: &mut TcpStream) -> bool {
    timeout(DEADLINE, stream.read(&mut [0; 1])).await.is_ok_and(|read| !matches!(read, Ok(1)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn probes_answer_while_a_crowd_is_silent_and_the_crowd_has_an_end() {
    for says in [&b""[..], b"P", b"GET /livez HTTP/1.1\r\nhost: "] {
        let (address, _stop, _server) = start().await;
        let mut crowd = crowd(address, 400, says).await;
        for path in ["/livez", "/readyz", "/metrics"] {
            assert_eq!(get(address, path).await, "HTTP/1.1 200 OK", "{path}");
        }
        // The first connections were closed to make room for the probes or for later ones; the last
        // ones exceeded the time limit of the request head.
        assert!(is_closed_in_time(&mut crowd[0]).await, "{says:?}");
        assert!(is_closed_in_time(crowd.last_mut().unwrap()).await, "{says:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_head_does_not_keep_the_process() {
    let (address, stop, server) = start().await;
    let _crowd = crowd(address, 10, b"GET /livez HTTP/1.1\r\nhost: ").await;
    get(address, "/livez").await;
    stop.cancel();
    timeout(DEADLINE, server).await.unwrap().unwrap();
}
