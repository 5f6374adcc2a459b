//! Single flight: of those who want the same at the same time, one works and the others get what comes out.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// Works in progress by key.
#[derive(Debug)]
pub struct Flights<K, V> {
    open: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
}

/// What one who wants something is.
#[derive(Debug)]
pub enum Role<K: Hash + Eq, V> {
    /// The one who works; [`Leader::land`] tells the others.
    Leader(Leader<K, V>),
    /// One who waits for the leader.
    Follower(Follower<V>),
}

/// The one who works. Dropped without a result (its client left, it failed in a way that concerns nobody else), one of the others takes over.
#[derive(Debug)]
pub struct Leader<K: Hash + Eq, V> {
    key: K,
    open: Arc<Mutex<HashMap<K, watch::Receiver<Option<V>>>>>,
    result: watch::Sender<Option<V>>,
}

/// One who waits.
#[derive(Debug)]
pub struct Follower<V>(watch::Receiver<Option<V>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self { open: Arc::default() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    /// Joins the work on `key`, or begins it.
    pub fn join(&self, key: &K) -> Role<K, V> {
        // The map is whole whenever the lock is let go.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = open.get(key) {
            return Role::Follower(Follower(flight.clone()));
        }
        let (result, flight) = watch::channel(None);
        open.insert(key.clone(), flight);
        Role::Leader(Leader { key: key.clone(), open: Arc::clone(&self.open), result })
    }
}

impl<K: Hash + Eq, V> Leader<K, V> {
    /// Gives the result to all who wait.
    pub fn land(self, result: V) {
        self.result.send_replace(Some(result));
    }
}

impl<K: Hash + Eq, V> Drop for Leader<K, V> {
    fn drop(&mut self) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

impl<V: Clone> Follower<V> {
    /// What the leader got; `None` when it went without a result.
    pub async fn landed(mut self) -> Option<V> {
        self.0.wait_for(Option::is_some).await.ok()?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_works_and_all_get_it() {
        let flights = Flights::<u8, u32>::default();
        let Role::Leader(leader) = flights.join(&1) else { panic!("the first leads") };
        let Role::Leader(_other) = flights.join(&2) else { panic!("another key is another flight") };
        let followers: Vec<_> = (0..10)
            .map(|_| match flights.join(&1) {
                Role::Follower(follower) => tokio::spawn(follower.landed()),
                Role::Leader(_) => panic!("there is a leader"),
            })
            .collect();
        leader.land(7);
        for follower in followers {
            assert_eq!(follower.await.unwrap(), Some(7));
        }
        assert!(matches!(flights.join(&1), Role::Leader(_)), "it is over");
    }

    #[tokio::test]
    async fn a_leader_that_leaves_is_replaced() {
        let flights = Flights::<u8, u32>::default();
        let Role::Leader(leader) = flights.join(&1) else { panic!() };
        let Role::Follower(follower) = flights.join(&1) else { panic!() };
        drop(leader);
        assert_eq!(follower.landed().await, None);
        assert!(matches!(flights.join(&1), Role::Leader(_)));
    }
}
