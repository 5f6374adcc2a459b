//! What is known of feedback: what was counted already, what is counted of it, and the other
//! gateways of the namespace, each of which counts its share. Each id is counted by one gateway
//! pod, which remembers it: the first in rank of those that are there (rendezvous hashing). A pod
//! that is replaced takes its memory with it, so an id may count twice then, and no more often.

pub mod item;
pub mod ledger;
pub mod outcomes;
pub mod peers;
pub mod windows;

use self::ledger::FeedbackLedger;
use self::peers::GatewayPeers;

/// What a gateway knows for feedback.
#[derive(Debug)]
pub struct FeedbackState {
    /// What was counted already.
    pub ledger: FeedbackLedger,
    /// The other gateways of the namespace.
    pub peers: GatewayPeers,
}
