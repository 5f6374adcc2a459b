//! Who goes for whom. The clock stands still but for what a test lets pass.

use super::*;
use crate::settings::End;

const BOUND: usize = 4;

fn table(busy: Busy) -> Arc<Table> {
    Table::new(Settings {
        max_connections: BOUND,
        header_timeout: Duration::from_secs(60),
        idle_timeout: Duration::from_secs(60),
        busy,
        end: End::Cut,
    })
}

fn peer(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn enter(table: &Arc<Table>, peers: &[u8]) -> Vec<Place> {
    peers.iter().map(|last| table.enter(peer(*last))).collect()
}

fn orders(places: &[Place]) -> Vec<Order> {
    places.iter().map(|place| place.entry.order()).collect()
}

fn begin(place: &Place) {
    place.table.begin(&place.entry);
}

fn finish(place: &Place) {
    place.table.finish(&place.entry);
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

use Order::{Close, Cut, Leave, Stay};

#[tokio::test(start_paused = true)]
async fn the_oldest_silent_one_of_the_largest_peer_goes() {
    let table = table(Busy::Wait);
    let places = enter(&table, &[1, 2, 2, 2]);
    let newest = table.enter(peer(3));
    assert!(newest.entry.is_seated());
    assert_eq!(orders(&places), [Stay, Close, Stay, Stay]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_one_goes_before_an_idle_one_even_of_a_smaller_peer() {
    let table = table(Busy::Wait);
    let places = enter(&table, &[1, 2, 2, 2]);
    places[1..].iter().for_each(begin);
    places[1..].iter().for_each(finish);
    pass(GRACE).await;
    let newest = table.enter(peer(2));
    assert!(newest.entry.is_seated());
    assert_eq!(orders(&places), [Close, Stay, Stay, Stay]);
    // Now there are only idle ones: the oldest.
    let newest = [newest, table.enter(peer(3))];
    assert_eq!(orders(&places), [Close, Leave, Stay, Stay]);
    assert!(newest.iter().all(|place| place.entry.is_seated()));
}

#[tokio::test(start_paused = true)]
async fn one_with_a_request_never_goes_and_the_new_one_waits() {
    let table = table(Busy::Wait);
    let places = enter(&table, &[1, 1, 1, 1]);
    places.iter().for_each(begin);
    pass(GRACE * 10).await;
    let newest = enter(&table, &[1, 1, 2]);
    assert!(orders(&places).iter().all(|order| *order == Stay) && !newest[2].entry.is_seated());
    // Between two requests of a busy client: it makes room for who holds less, and for nobody else.
    finish(&places[1]);
    let seated = |places: &[Place]| places.iter().map(|place| place.entry.is_seated()).collect::<Vec<_>>();
    assert_eq!((orders(&places), seated(&newest)), (vec![Stay, Leave, Stay, Stay], vec![false, false, true]));
    begin(&newest[2]);
    finish(&places[2]);
    assert_eq!(orders(&places), [Stay, Leave, Stay, Stay]);
    pass(GRACE).await;
    table.seat_waiting();
    assert_eq!((orders(&places), seated(&newest)), (vec![Stay, Leave, Leave, Stay], vec![true, false, true]));
    drop(places);
    assert_eq!(seated(&newest), [true, true, true]);
}

#[tokio::test(start_paused = true)]
async fn nobody_loses_to_a_peer_that_holds_more() {
    let table = table(Busy::Cut);
    let places = enter(&table, &[1, 2, 2, 2]);
    places.iter().for_each(begin);
    finish(&places[0]);
    pass(GRACE * 10).await;
    let newest = table.enter(peer(2));
    assert!(!newest.entry.is_seated());
    assert!(orders(&places).iter().all(|order| *order == Stay));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_must_answer_cuts_the_oldest_of_the_largest_peer() {
    let table = table(Busy::Cut);
    let places = enter(&table, &[1, 2, 2, 1]);
    places.iter().for_each(begin);
    let newest = table.enter(peer(3));
    assert!(newest.entry.is_seated());
    let cut: Vec<_> = orders(&places).into_iter().filter(|order| *order == Cut).collect();
    assert_eq!(cut.len(), 1);
    begin(&newest);
    let next = table.enter(peer(3));
    assert!(next.entry.is_seated(), "the others hold two or one, this peer holds one");
}

#[tokio::test(start_paused = true)]
async fn one_peer_may_hold_all_places_while_nobody_else_wants_one() {
    let table = table(Busy::Cut);
    let places = enter(&table, &[1; BOUND]);
    assert!(places.iter().all(|place| place.entry.is_seated()));
    places.iter().for_each(begin);
    assert!(orders(&places).iter().all(|order| *order == Stay));
}

#[tokio::test(start_paused = true)]
async fn of_those_who_wait_the_peer_that_holds_least_comes_first_and_waiting_is_bounded() {
    let table = table(Busy::Wait);
    let mut places = enter(&table, &[1; BOUND]);
    places.iter().for_each(begin);
    let mut waiting = enter(&table, &[1; MAX_WAITING - 1]);
    waiting.push(table.enter(peer(2)));
    assert!(orders(&waiting).iter().all(|order| *order == Stay));
    let more = table.enter(peer(1));
    assert_eq!(waiting[0].entry.order(), Cut, "the oldest of the peer that waits most");
    assert!(orders(&waiting[1..]).iter().all(|order| *order == Stay));
    drop(places.pop());
    assert!(waiting[MAX_WAITING - 1].entry.is_seated() && !more.entry.is_seated());
}

#[tokio::test(start_paused = true)]
async fn the_books_are_kept() {
    let table = table(Busy::Cut);
    for round in 0..100_u8 {
        let places = enter(&table, &[round, 1, round % 3, 4, 5, 6, 1, 1, 1]);
        places.iter().step_by(2).filter(|place| place.entry.is_seated()).for_each(begin);
        pass(GRACE / 3).await;
        let more = enter(&table, &[round, 7, 8, 1]);
        let state = table.lock();
        assert!(state.seated <= BOUND);
        assert_eq!(state.seated, state.peers.values().map(Peer::len).sum::<usize>());
        drop(state);
        drop((places, more));
    }
    let state = table.lock();
    assert_eq!((state.seated, state.leaving, state.waiting.len(), state.peers.len()), (0, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn deadlines_are_those_of_the_settings() {
    let table = table(Busy::Wait);
    let settings = table.settings;
    let place = table.enter(peer(1));
    let entered = Instant::now();
    assert_eq!(place.entry.deadline(&settings), Some(entered + settings.header_timeout));
    begin(&place);
    assert_eq!(place.entry.deadline(&settings), None);
    pass(GRACE * 5).await;
    finish(&place);
    assert_eq!(place.entry.deadline(&settings), Some(Instant::now() + settings.idle_timeout));
}
