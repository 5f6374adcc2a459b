//! The memory for bodies stays within its limit, however they arrive. A single test, because the
//! memory of the whole process is measured.

#![allow(clippy::unwrap_used, clippy::expect_used)] // Test helpers are not `#[test]` functions.

mod support;

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use futures::future::join_all;
use support::{STABLE, World, within};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

const DEADLINE: Duration = Duration::from_secs(120);
/// The memory limit of the gateway under test.
const BUDGET: usize = 32 << 20;
/// Allowed increase: the limit plus a quarter, and the other memory of a busy process.
const ALLOWED: usize = BUDGET / 4 * 5 + (8 << 20);

/// A value of `/proc/self/status`, in bytes.
fn status(name: &str) -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() << 10
}

async fn connect(world: &World, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(world.data).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let head = format!("POST /v2/models/digits/infer HTTP/1.1\r\nhost: x\r\n{head}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

/// Sends bytes of a repeated pattern, until the gateway stops reading for a while.
async fn flood(stream: &mut TcpStream, pattern: &[u8], bytes: usize) {
    let block = pattern.repeat((64 << 10) / pattern.len());
    for _ in 0..bytes / block.len() {
        if !matches!(timeout(Duration::from_secs(1), stream.write_all(&block)).await, Ok(Ok(()))) {
            return;
        }
    }
}

/// Bodies in chunks of 16 bytes, 22 on the wire.
async fn small_chunks(world: &World) -> Vec<TcpStream> {
    let clients = (0..8).map(|_| async {
        let mut stream = connect(world, "transfer-encoding: chunked").await;
        flood(&mut stream, b"10\r\n0123456789abcdef\r\n", 6 << 20).await;
        stream
    });
    join_all(clients).await
}

/// Bodies that arrive in single bytes, each read into a buffer of its own.
async fn trickles(world: &World) -> Vec<TcpStream> {
    let mut clients = join_all((0..100).map(|_| connect(world, "content-length: 100000"))).await;
    for _ in 0..100 {
        for stream in &mut clients {
            stream.write_all(b" ").await.unwrap();
        }
        // Each byte is read before the next one arrives.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    clients
}

/// Bodies of unknown length that turn out to be too large to buffer, to a pod that does not read.
async fn turn_into_streams(world: &World) -> Vec<TcpStream> {
    let clients = (0..64).map(|_| async {
        let mut stream = connect(world, "transfer-encoding: chunked").await;
        let mut chunk = String::new();
        write!(chunk, "{:x}\r\n{}\r\n", 16 << 10, " ".repeat(16 << 10)).unwrap();
        flood(&mut stream, chunk.as_bytes(), 6 << 20).await;
        stream
    });
    join_all(clients).await
}

/// A pod that accepts connections and reads nothing.
async fn deaf() -> (SocketAddr, JoinHandle<()>) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    socket.bind(support::loopback()).unwrap();
    let listener = socket.listen(1024).unwrap();
    let addr = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut connections = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.push(stream);
        }
    });
    (addr, task)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_take_no_more_than_their_bound() {
    let mut world = World::with(|settings| {
        settings.max_buffered_total = BUDGET;
        settings.max_buffered_request = 4 << 20;
    })
    .await;
    // Data sent to a pod that does not read stays buffered until the request's deadline, also when
    // the client has disconnected.
    world.weigh(1, 0).model().timeout = Duration::from_secs(8);
    let (deaf, task) = deaf().await;
    world.endpoints(STABLE, &[deaf]).apply();
    for attack in ["small chunks", "trickles", "streams"] {
        // Resets the peak value.
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status("VmRSS");
        let clients = within(DEADLINE, async {
            match attack {
                "small chunks" => small_chunks(&world).await,
                "trickles" => trickles(&world).await,
                _ => turn_into_streams(&world).await,
            }
        })
        .await;
        let taken = status("VmHWM").saturating_sub(before);
        println!("{attack}: {} KiB", taken >> 10);
        assert!(taken <= ALLOWED, "{attack}: {taken} bytes");
        drop(clients);
        let memory =
            std::sync::Arc::clone(&world.gateway.router.table().models["digits"].shares.memory);
        within(DEADLINE, async {
            while memory.used() > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
    }
    task.abort();
}
