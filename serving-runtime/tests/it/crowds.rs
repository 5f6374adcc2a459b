//! Many idle connections against both ports of a server.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

use super::support::{DEADLINE, Server, affine, client};

/// Opens connections from a separate address, which send `says` and nothing more.
async fn crowd(url: &str, count: usize, says: &[u8]) -> Vec<TcpStream> {
    let to = url.trim_start_matches("http://").parse().unwrap();
    let mut crowd = Vec::new();
    for _ in 0..count {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut stream = tokio::time::timeout(DEADLINE, socket.connect(to)).await.unwrap().unwrap();
        stream.write_all(says).await.unwrap();
        crowd.push(stream);
    }
    crowd
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_keep_nobody_out() {
    let server = Server::start("affine", &["--max-connections", "100"]);
    for says in [&b""[..], b"P"] {
        let mut admin = crowd(&server.admin, 300, says).await;
        let mut api = crowd(&server.api, 300, says).await;
        for path in ["/livez", "/readyz", "/metrics"] {
            let begun = Instant::now();
            let answer = client().get(format!("{}{path}", server.admin)).send().await.unwrap();
            assert_eq!(answer.status(), 200, "{path}");
            assert!(begun.elapsed() < Duration::from_secs(1), "{path} took {:?}", begun.elapsed());
        }
        for _ in 0..50 {
            // Over a kept connection, and over a new one.
            assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
            let url = format!("{}/v2/models/m/infer", server.api);
            let answer =
                client().post(url).body(affine(&[[1.0, 2.0]]).to_string()).send().await.unwrap();
            assert_eq!(answer.status(), 200);
        }
        // The number of connections is limited: the first ones were closed for the last.
        for stream in [&mut admin[0], &mut api[0]] {
            let read = tokio::time::timeout(DEADLINE, stream.read(&mut [0; 1])).await;
            assert!(!matches!(read.expect("never closed"), Ok(1)));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_connections_do_not_delay_the_end() {
    let mut server = Server::start("affine", &["--drain-timeout-seconds", "3600"]);
    let _crowd = crowd(&server.api, 10, b"").await;
    let _half = crowd(&server.api, 10, b"P").await;
    assert_eq!(server.infer(&affine(&[[1.0, 2.0]])).await.0, 200);
    server.signal("TERM");
    assert_eq!(server.wait().code(), Some(0));
}
