//! The state of feedback: which feedback has been counted, the counts, and the other gateways of
//! the namespace. Each id is counted and remembered by exactly one gateway pod: the first in rank
//! among the existing ones (rendezvous hashing). A replaced pod loses its memory, so an id may then
//! count twice, but no more often.

pub mod item;
pub mod ledger;
pub mod outcomes;
pub mod peers;
pub mod windows;

use self::ledger::FeedbackLedger;
use self::peers::GatewayPeers;

/// The state of feedback in a gateway.
#[derive(Debug)]
pub struct FeedbackState {
    /// The feedback that has been counted.
    pub ledger: FeedbackLedger,
    /// The other gateways of the namespace.
    pub peers: GatewayPeers,
}
