//! A request as it came.

use std::net::IpAddr;

use http::request::Parts;
use hyper::body::Incoming;
use slipway_gateway_upstream::upload::ClientBody;
use tokio::time::Instant;

/// By which port a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortAccess {
    /// The one for everybody.
    Public,
    /// The one for those who show the token.
    Private,
}

/// A request as it came.
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

    /// Its head and its body.
    pub fn into_parts(self) -> (Parts, ClientBody) {
        (self.parts, self.body)
    }
}
