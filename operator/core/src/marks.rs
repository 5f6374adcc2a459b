//! Marks on a ReplicaSet about the history of its revision, used if the status is lost.

use std::collections::BTreeMap;

use jiff::Timestamp;
use slipway_crds::labels::{ABORTED, STABLE_SINCE};

/// The annotations [`STABLE_SINCE`] and [`ABORTED`] of a ReplicaSet. The status takes precedence;
/// the marks are read only if it is missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevisionMarks {
    /// Since when the revision was the stable one. Of several revisions the latest is the stable
    /// one.
    pub stable_since: Option<Timestamp>,
    /// When the rollout of the revision was rolled back, and the reason.
    pub aborted: Option<(Timestamp, String)>,
}

impl RevisionMarks {
    /// Parses annotations. An invalid value counts as absent.
    pub fn from_annotations(all: &BTreeMap<String, String>) -> Self {
        let aborted = all.get(ABORTED).and_then(|value| value.split_once(' '));
        Self {
            stable_since: all.get(STABLE_SINCE).and_then(|value| value.parse().ok()),
            aborted: aborted
                .filter(|(_, reason)| is_reason(reason))
                .and_then(|(at, reason)| Some((at.parse().ok()?, reason.to_owned()))),
        }
    }

    /// Both annotations with their values; `None` for one that has to be absent.
    pub fn to_annotations(&self) -> [(&'static str, Option<String>); 2] {
        let aborted = self.aborted.as_ref().map(|(at, reason)| format!("{at} {reason}"));
        [(STABLE_SINCE, self.stable_since.map(|at| at.to_string())), (ABORTED, aborted)]
    }
}

/// The reason becomes that of a condition, which the API server validates. An invalid text of
/// another client must not block all writes of the status.
fn is_reason(text: &str) -> bool {
    text.len() <= 64
        && text.starts_with(|letter: char| letter.is_ascii_alphabetic())
        && text.chars().all(|letter| letter.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: &[(&str, &str)]) -> RevisionMarks {
        RevisionMarks::from_annotations(
            &annotations
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    #[test]
    fn what_is_written_is_read() {
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        for marks in [
            RevisionMarks::default(),
            RevisionMarks { stable_since: Some(at), aborted: None },
            RevisionMarks { stable_since: Some(at), aborted: Some((at, "GateFailed".to_owned())) },
        ] {
            let written = marks.to_annotations();
            let written: Vec<_> =
                written.iter().filter_map(|(key, value)| Some((*key, value.as_deref()?))).collect();
            assert_eq!(read(&written), marks);
        }
        assert_eq!(
            read(&[
                (STABLE_SINCE, "2026-01-01T00:00:00Z"),
                (ABORTED, "2026-01-01T00:00:00Z Braked")
            ]),
            RevisionMarks { stable_since: Some(at), aborted: Some((at, "Braked".to_owned())) }
        );
    }

    #[test]
    fn what_a_stranger_wrote_is_absent() {
        for value in [
            "",
            "x",
            "2026-01-01T00:00:00Z",
            "2026-01-01T00:00:00Z ",
            "2026-01-01T00:00:00Z a b",
            "2026 Braked",
        ] {
            assert_eq!(
                read(&[(STABLE_SINCE, &format!("{value}?")), (ABORTED, value)]),
                RevisionMarks::default(),
                "{value}"
            );
        }
        let long = format!("2026-01-01T00:00:00Z {}", "R".repeat(65));
        assert_eq!(read(&[(ABORTED, &long)]), RevisionMarks::default());
    }
}
