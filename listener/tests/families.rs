//! Real sockets of both address families at one port.
#![allow(clippy::unwrap_used, reason = "this is a test, helpers included")]

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use slipway_listener::{HttpServer, ListenerSettings, ShutdownMode, bind_address};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The peer address that the port at `address` sees.
async fn peer(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn one_port_answers_both_families_and_knows_a_peer_by_one_address() {
    let socket = bind_address("[::]:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let make = |peer: std::net::IpAddr| {
        service_fn(move |_: http::Request<hyper::body::Incoming>| async move {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(peer.to_string()))))
        })
    };
    let server = HttpServer::new(
        socket,
        ListenerSettings::for_admin_port(ShutdownMode::Abort),
        auto::Builder::new(TokioExecutor::new()),
    );
    tokio::spawn(server.serve(make, std::future::pending()));
    assert_eq!(peer(SocketAddr::from(([127, 0, 0, 1], port))).await, "127.0.0.1");
    match std::net::TcpListener::bind("[::1]:0") {
        Ok(_) => assert_eq!(peer(format!("[::1]:{port}").parse().unwrap()).await, "::1"),
        Err(error) => eprintln!("not looked at: ::1, because this machine has no IPv6 ({error})"),
    }
}
