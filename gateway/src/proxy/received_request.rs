//! A request as received.

use std::net::IpAddr;

use http::request::Parts;
use hyper::body::Incoming;
use slipway_gateway_upstream::upload::ClientBody;
use tokio::time::Instant;

/// The port through which a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAccess {
    /// The public port.
    Public,
    /// The port for clients with the token.
    Private,
}

/// A request as received.
#[derive(Debug)]
pub struct ReceivedRequest {
    pub(super) parts: Parts,
    pub(super) body: ClientBody,
    pub(super) received_at: Instant,
    pub(super) access: PortAccess,
}

impl ReceivedRequest {
    pub(super) fn new(parts: Parts, body: Incoming, peer: IpAddr, access: PortAccess) -> Self {
        Self { parts, body: ClientBody::new(body, peer), received_at: Instant::now(), access }
    }

    pub fn into_parts(self) -> (Parts, ClientBody) {
        (self.parts, self.body)
    }
}
