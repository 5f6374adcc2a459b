//! Single flight: of several tasks that want the same result at the same time, one (the leader)
//! computes it and the others (followers) receive a copy.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

/// Computations in progress, by key.
#[derive(Debug)]
pub struct SingleFlight<K, V> {
    in_flight: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

/// The role of a task in a flight.
#[derive(Debug)]
pub enum FlightRole<K: Hash + Eq, V> {
    /// Computes the result and passes it to [`FlightLeader::complete`].
    Leader(FlightLeader<K, V>),
    /// Waits for the leader's result.
    Follower(FlightFollower<V>),
}

/// The task that computes. If it is dropped without a result (its client left, or it failed for a
/// reason specific to its request), one of the followers takes over.
#[derive(Debug)]
pub struct FlightLeader<K: Hash + Eq, V> {
    key: K,
    in_flight: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    result: watch::Sender<Option<V>>,
}

/// A task that waits for the result.
#[derive(Debug)]
pub struct FlightFollower<V>(watch::Receiver<Option<V>>);

impl<K, V> Default for SingleFlight<K, V> {
    fn default() -> Self {
        Self { in_flight: Arc::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> SingleFlight<K, V> {
    /// Joins the flight for `key`, or starts one.
    pub fn join(&self, key: &K) -> FlightRole<K, V> {
        let mut open = self.in_flight.lock();
        if let Some(flight) = open.get(key) {
            return FlightRole::Follower(FlightFollower(flight.clone()));
        }
        let (result, flight) = watch::channel(None);
        open.insert(key.clone(), flight);
        FlightRole::Leader(FlightLeader {
            key: key.clone(),
            in_flight: Arc::clone(&self.in_flight),
            result,
        })
    }
}

impl<K: Hash + Eq, V> FlightLeader<K, V> {
    /// Passes the result to all followers.
    pub fn complete(self, result: V) {
        self.result.send_replace(Some(result));
    }
}

impl<K: Hash + Eq, V> Drop for FlightLeader<K, V> {
    fn drop(&mut self) {
        self.in_flight.lock().remove(&self.key);
    }
}

impl<V: Clone> FlightFollower<V> {
    /// The leader's result; `None` when the leader was dropped without one.
    pub async fn wait(mut self) -> Option<V> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_works_and_all_get_it() {
        let flights = SingleFlight::<u8, u32>::default();
        let FlightRole::Leader(leader) = flights.join(&1) else { panic!("the first leads") };
        let FlightRole::Leader(_other) = flights.join(&2) else {
            panic!("another key is another flight")
        };
        let followers: Vec<_> = (0..10)
            .map(|_| match flights.join(&1) {
                FlightRole::Follower(follower) => tokio::spawn(follower.wait()),
                FlightRole::Leader(_) => panic!("there is a leader"),
            })
            .collect();
        leader.complete(7);
        for follower in followers {
            assert_eq!(follower.await.unwrap(), Some(7));
        }
        assert!(matches!(flights.join(&1), FlightRole::Leader(_)), "it is over");
    }

    #[tokio::test]
    async fn a_leader_that_leaves_is_replaced() {
        let flights = SingleFlight::<u8, u32>::default();
        let FlightRole::Leader(leader) = flights.join(&1) else { panic!() };
        let FlightRole::Follower(follower) = flights.join(&1) else { panic!() };
        drop(leader);
        assert_eq!(follower.wait().await, None);
        assert!(matches!(flights.join(&1), FlightRole::Leader(_)));
    }
}
