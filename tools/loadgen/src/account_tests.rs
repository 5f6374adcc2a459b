//! Tests of the account.

use std::time::{Duration, Instant};

use crate::account::{FinishedRequest, RequestAccount};
use crate::protocol::AnswerOrigin;
use crate::reason::{AnswerDefect, FailureReason};
use crate::summary::AccountSummary;

fn finished(
    number: u64,
    revision: Option<&str>,
    outcome: Result<bool, FailureReason>,
) -> FinishedRequest {
    let sent = Instant::now();
    let status = match outcome {
        Ok(_) | Err(FailureReason::Malformed(_)) => 200,
        Err(FailureReason::Status(code)) => code,
        Err(_) => 0,
    };
    FinishedRequest {
        number,
        intended: sent,
        sent: sent + Duration::from_millis(5),
        done: sent + Duration::from_millis(20),
        status,
        origin: AnswerOrigin { revision: revision.map(str::to_owned), shielded: None },
        outcome,
    }
}

fn filled() -> RequestAccount {
    let account = RequestAccount::new(100);
    let outcomes = [
        (Some("aaa"), Ok(true)),
        (Some("aaa"), Ok(false)),
        (Some("bbb"), Ok(true)),
        (Some("bbb"), Err(FailureReason::Status(500))),
        (Some("bbb"), Err(FailureReason::Malformed(AnswerDefect::Id))),
        (None, Err(FailureReason::Connect)),
        (None, Err(FailureReason::Timeout)),
        (None, Err(FailureReason::Timeout)),
    ];
    for (number, (revision, outcome)) in outcomes.into_iter().enumerate() {
        account.begin_request();
        account.finish_request(&finished(number as u64, revision, outcome));
    }
    account
}

#[test]
fn every_request_has_one_outcome() {
    let account = filled();
    account.begin_request();
    let summary = AccountSummary::from_account(&account);
    assert_eq!((summary.sent, summary.answered, summary.failed, summary.in_flight), (9, 3, 5, 1));
    assert_eq!(summary.correct, 2);
    let reasons: Vec<_> =
        summary.failed_by_reason.iter().map(|(reason, count)| (reason.as_str(), *count)).collect();
    assert_eq!(reasons, [("connect", 1), ("http_500", 1), ("malformed_id", 1), ("timeout", 2)]);
    assert_eq!(summary.by_revision["aaa"].answered, 2);
    assert_eq!((summary.by_revision["bbb"].answered, summary.by_revision["bbb"].failed), (1, 2));
    assert!(
        !summary.by_revision.contains_key(""),
        "nobody is blamed for requests without an answer"
    );
}

#[test]
fn latency_counts_from_the_intended_time() {
    let summary = AccountSummary::from_account(&filled());
    let p50 = summary.latency_ms.p50.unwrap();
    assert!((20.0..21.0).contains(&p50), "{p50}");
}

#[test]
fn what_is_in_flight_at_a_reset_ends_in_the_new_account() {
    let account = filled();
    account.begin_request();
    account.reset();
    let summary = AccountSummary::from_account(&account);
    assert_eq!((summary.sent, summary.in_flight, summary.answered, summary.failed), (1, 1, 0, 0));
    account.finish_request(&finished(9, Some("ccc"), Ok(true)));
    let summary = AccountSummary::from_account(&account);
    assert_eq!((summary.sent, summary.in_flight, summary.answered), (1, 0, 1));
    assert_eq!(summary.by_revision.keys().collect::<Vec<_>>(), ["ccc"]);
}

#[test]
fn the_shield_is_counted_for_both_sides() {
    let account = RequestAccount::new(10);
    account.begin_request();
    let mut request = finished(0, Some("stable"), Ok(true));
    request.origin.shielded = Some("candidate".into());
    account.finish_request(&request);
    let summary = AccountSummary::from_account(&account);
    assert_eq!(summary.shielded, 1);
    assert_eq!(summary.by_revision["stable"].stood_in, 1);
    assert_eq!(
        (summary.by_revision["candidate"].shielded, summary.by_revision["candidate"].answered),
        (1, 0)
    );
}

#[test]
fn the_ring_is_bounded_and_a_cursor_survives_it() {
    let account = RequestAccount::new(3);
    for number in 0..5 {
        account.begin_request();
        account.finish_request(&finished(number, Some("aaa"), Ok(true)));
    }
    let (first, _, next) = account.records(0, 2).unwrap();
    assert_eq!(first.iter().map(|record| record.number).collect::<Vec<_>>(), [2, 3]);
    account.begin_request();
    account.finish_request(&finished(5, Some("aaa"), Ok(true)));
    let (rest, _, next) = account.records(next, 10).unwrap();
    assert_eq!(rest.iter().map(|record| record.number).collect::<Vec<_>>(), [4, 5]);
    assert!(account.records(next, 10).is_none());
    assert_eq!(
        AccountSummary::from_account(&account).sent,
        6,
        "the counts know more than the ring"
    );
}

#[test]
fn names_of_revisions_are_bounded() {
    let account = RequestAccount::new(1);
    for number in 0..2000 {
        account.begin_request();
        account.finish_request(&finished(number, Some(&format!("r{number}")), Ok(true)));
    }
    let summary = AccountSummary::from_account(&account);
    assert!(summary.by_revision.len() <= 1000);
    assert_eq!(summary.by_revision.values().map(|revision| revision.answered).sum::<u64>(), 2000);
}
