//! Seals and opens prediction ids.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::label::{self, PredictedLabel};
use crate::report::{PredictionReport, sample_number, sample_text};

const PREFIX: &str = "v2.";
/// Purpose for which the key is derived from that of the namespace, with the UID of the
/// ModelDeployment.
pub const PREDICTION_ID_PURPOSE: &str = "prediction ids v1";
/// Longest revision in an id.
pub const MAX_REVISION: usize = 16;
/// Longest text that is parsed.
const MAX_TEXT: usize = 1200;

/// The content of a prediction id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictionId {
    /// The revision that answered.
    pub revision: String,
    /// Time of the prediction in Unix seconds.
    pub seconds: u32,
    /// Random; unique together with the time.
    pub number: u64,
    /// The predicted labels of the first rows.
    pub labels: Vec<Option<PredictedLabel>>,
}

/// The text is not a prediction id of this ModelDeployment: it has another format, was sealed with
/// another key, or was modified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a prediction id of this ModelDeployment")]
pub struct InvalidPredictionId;

/// Whether a text is a valid revision: it becomes the value of a label, so only the format that the
/// operator creates is accepted.
pub fn is_revision(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_REVISION
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// Seals and opens the ids of one ModelDeployment.
pub struct PredictionIdSealer(LessSafeKey);

impl std::fmt::Debug for PredictionIdSealer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PredictionIdSealer")
    }
}

impl PredictionIdSealer {
    /// Creates a sealer with the key of a ModelDeployment, as [`crate::derive_key`] derives it for
    /// [`PREDICTION_ID_PURPOSE`] and its UID. `None` when the library rejects the key, which does
    /// not happen.
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(|key| Self(LessSafeKey::new(key)))
    }

    /// The id of a prediction that `revision` made at `seconds`; `None` for an invalid revision, or
    /// when the system has no random numbers.
    pub fn seal(&self, revision: &str, seconds: u32, report: &PredictionReport) -> Option<String> {
        if !is_revision(revision) {
            return None;
        }
        let mut nonce = [0; NONCE_LEN];
        let (time, number) = nonce.split_at_mut(4);
        time.copy_from_slice(&seconds.to_be_bytes());
        SystemRandom::new().fill(number).ok()?;
        // Padded to one length for all revisions, so that the length of an id does not reveal the
        // revision.
        let mut sealed = vec![0; MAX_REVISION];
        sealed[..revision.len()].copy_from_slice(revision.as_bytes());
        sealed.extend(label::encode_labels(&report.labels));
        let sample = sample_text(report.sample);
        let aad = Aad::from(sample.as_bytes());
        self.0
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .ok()?;
        let mut text = format!("{PREFIX}{sample}.");
        URL_SAFE_NO_PAD.encode_string([&nonce[..], &sealed].concat(), &mut text);
        Some(text)
    }

    /// Opens an id.
    ///
    /// # Errors
    /// When it is not an id of this ModelDeployment.
    pub fn open(&self, text: &str) -> Result<PredictionId, InvalidPredictionId> {
        let rest = text
            .strip_prefix(PREFIX)
            .filter(|rest| rest.len() <= MAX_TEXT)
            .ok_or(InvalidPredictionId)?;
        let (sample, sealed) = rest.split_once('.').ok_or(InvalidPredictionId)?;
        sample_number(sample).ok_or(InvalidPredictionId)?;
        let mut sealed = URL_SAFE_NO_PAD.decode(sealed).map_err(|_| InvalidPredictionId)?;
        let nonce: [u8; NONCE_LEN] = *sealed.first_chunk().ok_or(InvalidPredictionId)?;
        let opened = self
            .0
            .open_within(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(sample.as_bytes()),
                &mut sealed,
                NONCE_LEN..,
            )
            .map_err(|_| InvalidPredictionId)?;
        let (revision, labels) =
            opened.split_at_checked(MAX_REVISION).ok_or(InvalidPredictionId)?;
        let revision =
            std::str::from_utf8(revision).map_err(|_| InvalidPredictionId)?.trim_end_matches('\0');
        let labels = label::decode_labels(labels).ok_or(InvalidPredictionId)?;
        let ([t0, t1, t2, t3, number @ ..], true) = (nonce, is_revision(revision)) else {
            return Err(InvalidPredictionId);
        };
        Ok(PredictionId {
            revision: revision.to_owned(),
            seconds: u32::from_be_bytes([t0, t1, t2, t3]),
            number: u64::from_be_bytes(number),
            labels,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::derive_key;
    use crate::label::tests::label;

    fn sealer(master: u8, uid: &str) -> PredictionIdSealer {
        PredictionIdSealer::new(&derive_key(&[master; 32], PREDICTION_ID_PURPOSE, uid)).unwrap()
    }

    fn report(labels: Vec<Option<PredictedLabel>>) -> PredictionReport {
        PredictionReport { sample: 7, labels }
    }

    proptest! {
        #[test]
        fn an_id_comes_back(revision in "[a-z0-9]{1,16}", seconds in any::<u32>(), labels in proptest::collection::vec(label(), 0..100)) {
            let sealer = sealer(1, "uid");
            let id = sealer.seal(&revision, seconds, &report(labels.clone())).unwrap();
            prop_assert!(id.len() <= PREFIX.len() + MAX_TEXT);
            let back = sealer.open(&id).unwrap();
            prop_assert_eq!((back.revision, back.seconds), (revision, seconds));
            prop_assert!(labels.starts_with(&back.labels));
        }

        #[test]
        fn what_is_changed_anywhere_is_none(at in 0..200_usize, to in "[A-Za-z0-9_.-]") {
            let sealer = sealer(1, "uid");
            let id = sealer.seal("0123456789", 1, &report(vec![Some(PredictedLabel::Number(3))])).unwrap();
            let at = at % id.len();
            let changed = format!("{}{to}{}", &id[..at], &id[at + 1..]);
            prop_assert!(changed == id || sealer.open(&changed) == Err(InvalidPredictionId));
        }

        #[test]
        fn any_text_is_opened_or_not(text in "(v2\\.)?[A-Za-z0-9_.-]{0,200}") {
            prop_assert_eq!(sealer(1, "uid").open(&text), Err(InvalidPredictionId));
        }
    }

    #[test]
    fn only_who_has_the_key_of_the_modeldeployment_opens_it() {
        let id = sealer(1, "uid").seal("0123456789", 1, &report(vec![])).unwrap();
        assert!(sealer(1, "uid").open(&id).is_ok());
        assert_eq!(sealer(1, "other").open(&id), Err(InvalidPredictionId));
        assert_eq!(sealer(2, "uid").open(&id), Err(InvalidPredictionId));
        assert_eq!(sealer(1, "uid").open(""), Err(InvalidPredictionId));
    }

    #[test]
    fn ids_of_two_revisions_look_alike() {
        let (one, other) = ("0123456789", "abc");
        let ids = [one, other]
            .map(|revision| sealer(1, "uid").seal(revision, 1, &report(vec![None])).unwrap());
        assert_eq!(ids[0].len(), ids[1].len());
        assert!(!ids[0].contains(one) && !ids[1].contains(other));
        assert_eq!(sealer(1, "uid").seal("BAD!", 1, &report(vec![])), None);
    }

    #[test]
    fn a_small_id_is_small() {
        let id = sealer(1, "uid")
            .seal("0123456789", 1, &report(vec![Some(PredictedLabel::Number(3))]))
            .unwrap();
        assert_eq!(id.len(), 77);
    }
}
