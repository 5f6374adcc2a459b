//! A model server's report on a prediction to the gateway, in a header that is not sent to clients.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::label::{self, PredictedLabel};

/// Length of the encoded sample number: 8 bytes in URL-safe base64.
const SAMPLE_LENGTH: usize = 11;
/// Maximum length: the sample, a dot, and the labels.
const MAX_TEXT: usize = SAMPLE_LENGTH + 1 + label::MAX_BYTES.div_ceil(3) * 4;

/// The sample number of a prediction, and its labels by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PredictionReport {
    /// The number of the prediction in payload samples; random.
    pub sample: u64,
    /// The predicted labels of the first rows; empty for a regression.
    pub labels: Vec<Option<PredictedLabel>>,
}

impl PredictionReport {
    /// `<sample>.<labels>`, in URL-safe base64.
    pub fn encode(&self) -> String {
        let mut text = sample_text(self.sample);
        text.push('.');
        URL_SAFE_NO_PAD.encode_string(label::encode_labels(&self.labels), &mut text);
        text
    }

    /// Decodes the output of [`PredictionReport::encode`].
    pub fn decode(text: &str) -> Option<Self> {
        let (sample, labels) = Some(text).filter(|text| text.len() <= MAX_TEXT)?.split_once('.')?;
        Some(Self {
            sample: sample_number(sample)?,
            labels: label::decode_labels(&URL_SAFE_NO_PAD.decode(labels).ok()?)?,
        })
    }

    /// A number for a prediction without samples.
    pub fn random_sample() -> u64 {
        let mut bytes = [0; 8];
        // Without random numbers the number is still valid, but not unique.
        let _ = SystemRandom::new().fill(&mut bytes);
        u64::from_be_bytes(bytes)
    }

    /// The sample number as text, as in ids and samples.
    pub fn sample_text(&self) -> String {
        sample_text(self.sample)
    }
}

pub(crate) fn sample_text(sample: u64) -> String {
    URL_SAFE_NO_PAD.encode(sample.to_be_bytes())
}

pub(crate) fn sample_number(text: &str) -> Option<u64> {
    let mut bytes = [0; 8];
    let length = URL_SAFE_NO_PAD
        .decode_slice(Some(text).filter(|text| text.len() == SAMPLE_LENGTH)?, &mut bytes)
        .ok()?;
    (length == bytes.len()).then(|| u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::label::tests::label;

    proptest! {
        #[test]
        fn a_report_comes_back(sample in any::<u64>(), labels in proptest::collection::vec(label(), 0..100)) {
            let report = PredictionReport { sample, labels };
            let back = PredictionReport::decode(&report.encode()).unwrap();
            prop_assert_eq!(back.sample, sample);
            prop_assert!(report.labels.starts_with(&back.labels));
        }

        #[test]
        fn any_text_is_read_or_not(text in "[A-Za-z0-9_.-]{0,200}") {
            let _ = PredictionReport::decode(&text);
        }
    }

    #[test]
    fn what_is_too_long_is_not_read() {
        assert!(
            PredictionReport::decode(&format!("{}.{}", sample_text(1), "A".repeat(MAX_TEXT)))
                .is_none()
        );
        assert!(
            PredictionReport::decode("").is_none()
                && PredictionReport::decode("AAAAAAAAAAA").is_none()
        );
    }
}
