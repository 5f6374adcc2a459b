//! Which connection is evicted for which. The clock is paused and advanced by the tests.

use std::time::Duration;

use super::*;
use crate::entry::IDLE_GRACE;
use crate::settings::ShutdownMode;

const BOUND: usize = 4;

fn table(busy: OverloadPolicy) -> Arc<ConnectionTable> {
    ConnectionTable::new(ListenerSettings {
        max_connections: BOUND,
        header_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        overload_policy: busy,
        shutdown_mode: ShutdownMode::Abort,
    })
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn enter(table: &Arc<ConnectionTable>, peers: &[u8]) -> Vec<ConnectionGuard> {
    peers.iter().map(|last| table.register(peer(*last))).collect()
}

fn orders(places: &[ConnectionGuard]) -> Vec<CloseOrder> {
    places.iter().map(|place| place.entry.order()).collect()
}

fn begin(place: &ConnectionGuard) {
    place.table.begin_request(&place.entry);
}

fn finish(place: &ConnectionGuard) {
    place.table.finish_request(&place.entry);
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

use CloseOrder::{Graceful, IfIdle, Immediate, KeepOpen};

#[tokio::test(start_paused = true)]
async fn the_oldest_silent_one_of_the_largest_peer_goes() {
    let table = table(OverloadPolicy::Wait);
    let places = enter(&table, &[1, 2, 2, 2]);
    let newest = table.register(peer(3));
    assert!(newest.entry.is_admitted());
    assert_eq!(orders(&places), [KeepOpen, IfIdle, KeepOpen, KeepOpen]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_one_goes_before_an_idle_one_even_of_a_smaller_peer() {
    let table = table(OverloadPolicy::Wait);
    let places = enter(&table, &[1, 2, 2, 2]);
    places[1..].iter().for_each(begin);
    places[1..].iter().for_each(finish);
    pass(IDLE_GRACE).await;
    let newest = table.register(peer(2));
    assert!(newest.entry.is_admitted());
    assert_eq!(orders(&places), [IfIdle, KeepOpen, KeepOpen, KeepOpen]);
    // Now there are only idle ones: the oldest is closed.
    let newest = [newest, table.register(peer(3))];
    assert_eq!(orders(&places), [IfIdle, Graceful, KeepOpen, KeepOpen]);
    assert!(newest.iter().all(|place| place.entry.is_admitted()));
}

#[tokio::test(start_paused = true)]
async fn one_with_a_request_never_goes_and_the_new_one_waits() {
    let table = table(OverloadPolicy::Wait);
    let places = enter(&table, &[1, 1, 1, 1]);
    places.iter().for_each(begin);
    pass(IDLE_GRACE * 10).await;
    let newest = enter(&table, &[1, 1, 2]);
    assert!(
        orders(&places).iter().all(|order| *order == KeepOpen) && !newest[2].entry.is_admitted()
    );
    // Between two requests of a busy client: it makes room only for a peer with fewer connections.
    finish(&places[1]);
    let seated = |places: &[ConnectionGuard]| {
        places.iter().map(|place| place.entry.is_admitted()).collect::<Vec<_>>()
    };
    assert_eq!(
        (orders(&places), seated(&newest)),
        (vec![KeepOpen, Graceful, KeepOpen, KeepOpen], vec![false, false, true])
    );
    begin(&newest[2]);
    finish(&places[2]);
    assert_eq!(orders(&places), [KeepOpen, Graceful, KeepOpen, KeepOpen]);
    pass(IDLE_GRACE).await;
    table.admit_waiting();
    assert_eq!(
        (orders(&places), seated(&newest)),
        (vec![KeepOpen, Graceful, Graceful, KeepOpen], vec![true, false, true])
    );
    drop(places);
    assert_eq!(seated(&newest), [true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn nobody_loses_to_a_peer_that_holds_more() {
    let table = table(OverloadPolicy::Preempt);
    let places = enter(&table, &[1, 2, 2, 2]);
    places.iter().for_each(begin);
    finish(&places[0]);
    pass(IDLE_GRACE * 10).await;
    let newest = table.register(peer(2));
    assert!(!newest.entry.is_admitted());
    assert!(orders(&places).iter().all(|order| *order == KeepOpen));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_must_answer_cuts_the_oldest_of_the_largest_peer() {
    let table = table(OverloadPolicy::Preempt);
    let places = enter(&table, &[1, 2, 2, 1]);
    places.iter().for_each(begin);
    let newest = table.register(peer(3));
    assert!(newest.entry.is_admitted());
    let cut: Vec<_> = orders(&places).into_iter().filter(|order| *order == Immediate).collect();
    assert_eq!(cut.len(), 1);
    begin(&newest);
    let next = table.register(peer(3));
    assert!(next.entry.is_admitted(), "the others hold two or one, this peer holds one");
}

#[tokio::test(start_paused = true)]
async fn one_peer_may_hold_all_places_while_nobody_else_wants_one() {
    let table = table(OverloadPolicy::Preempt);
    let places = enter(&table, &[1; BOUND]);
    assert!(places.iter().all(|place| place.entry.is_admitted()));
    places.iter().for_each(begin);
    assert!(orders(&places).iter().all(|order| *order == KeepOpen));
}

#[tokio::test(start_paused = true)]
async fn of_those_who_wait_the_peer_that_holds_least_comes_first_and_waiting_is_bounded() {
    let table = table(OverloadPolicy::Wait);
    let mut places = enter(&table, &[1; BOUND]);
    places.iter().for_each(begin);
    let mut waiting = enter(&table, &[1; MAX_WAITING - 1]);
    waiting.push(table.register(peer(2)));
    assert!(orders(&waiting).iter().all(|order| *order == KeepOpen));
    let more = table.register(peer(1));
    assert_eq!(waiting[0].entry.order(), Immediate, "the oldest of the peer that waits most");
    assert!(orders(&waiting[1..]).iter().all(|order| *order == KeepOpen));
    drop(places.pop());
    assert!(waiting[MAX_WAITING - 1].entry.is_admitted() && !more.entry.is_admitted());
}

#[tokio::test(start_paused = true)]
async fn the_books_are_kept() {
    let table = table(OverloadPolicy::Preempt);
    for round in 0..100_u8 {
        let places = enter(&table, &[round, 1, round % 3, 4, 5, 6, 1, 1, 1]);
        places.iter().step_by(2).filter(|place| place.entry.is_admitted()).for_each(begin);
        pass(IDLE_GRACE / 3).await;
        let more = enter(&table, &[round, 7, 8, 1]);
        let state = table.state.lock();
        assert!(state.admitted <= BOUND);
        assert_eq!(state.admitted, state.peers.values().map(PeerConnections::len).sum::<usize>());
        drop(state);
        drop((places, more));
    }
    let state = table.state.lock();
    assert_eq!(
        (state.admitted, state.leaving, state.waiting.len(), state.peers.len()),
        (0, 0, 0, 0)
    );
}

#[tokio::test(start_paused = true)]
async fn deadlines_are_those_of_the_settings() {
    let table = table(OverloadPolicy::Wait);
    let settings = table.settings;
    let place = table.register(peer(1));
    let entered = Instant::now();
    assert_eq!(place.entry.deadline(&settings), Some(entered + settings.header_timeout));
    begin(&place);
    assert_eq!(place.entry.deadline(&settings), None);
    pass(IDLE_GRACE * 5).await;
    finish(&place);
    assert_eq!(place.entry.deadline(&settings), Some(Instant::now() + settings.idle_timeout));
}
