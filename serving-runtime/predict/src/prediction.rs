//! Reads predictions from a model's outputs: the label and the confidence of each row.

pub use slipway_prediction_id::PredictedLabel;
use slipway_runtime_engine::signature::ModelSignature;
use slipway_runtime_engine::tensor::{DataType, Tensor, TensorData};

/// Which outputs of a model hold labels and scores; determined once, when the model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutputReader {
    labels: Option<usize>,
    scores: Option<usize>,
}

impl OutputReader {
    /// Converters name the label `label` (LightGBM, XGBoost, pipelines) or `output_label`
    /// (scikit-learn). Without such an output, the class with the highest score of a row is the
    /// label. Scores are the first float matrix, preferably one named probabilities.
    pub fn new(signature: &ModelSignature) -> Self {
        let outputs = &signature.outputs;
        let labels = outputs.iter().position(|s| {
            matches!(s.name.as_str(), "label" | "output_label")
                && matches!(s.datatype, DataType::I64 | DataType::I32 | DataType::Bytes)
        });
        let matrix = |i: &usize| {
            let s = &outputs[*i];
            matches!(s.datatype, DataType::F32 | DataType::F64)
                && s.shape.len() == 2
                && s.shape[1] != Some(1)
        };
        let named =
            |i: &usize| matches!(outputs[*i].name.as_str(), "probabilities" | "output_probability");
        let scores = (0..outputs.len())
            .filter(matrix)
            .find(named)
            .or_else(|| (0..outputs.len()).find(matrix));
        Self { labels, scores }
    }

    /// The output that holds scores by class.
    pub fn score_output(self) -> Option<usize> {
        self.scores
    }

    /// Whether the model returns labels or scores.
    pub fn is_classifier(self) -> bool {
        self.labels.is_some() || self.scores.is_some()
    }

    /// Reads the rows of one answer.
    pub fn read(self, outputs: &[Tensor]) -> Predictions {
        let scores = self.scores.and_then(|i| outputs.get(i)).map(read_scores).unwrap_or_default();
        let labels = match self.labels.and_then(|i| outputs.get(i)).map(|t| &t.data) {
            Some(TensorData::I64(v)) => {
                v.iter().map(|n| Some(PredictedLabel::Number(*n))).collect()
            }
            Some(TensorData::I32(v)) => {
                v.iter().map(|n| Some(PredictedLabel::Number(i64::from(*n)))).collect()
            }
            Some(TensorData::Bytes(v)) => {
                v.iter().map(|s| Some(PredictedLabel::Text(s.clone()))).collect()
            }
            _ => scores
                .iter()
                .map(|row| row.best.map(|n| PredictedLabel::Number(n as i64)))
                .collect(),
        };
        let confidences = scores.iter().filter_map(|row| row.confidence).collect();
        let non_finite = outputs.iter().filter(|t| t.data.first_non_finite().is_some()).count();
        let nan =
            if non_finite == 0 { 0 } else { outputs.iter().filter(|t| t.data.has_nan()).count() };
        Predictions { labels, confidences, non_finite, nan }
    }
}

/// The predictions of one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Predictions {
    /// A label for each row; `None` for a row without one (all scores NaN). Empty for models
    /// without labels.
    pub labels: Vec<Option<PredictedLabel>>,
    /// The highest probability of each row whose scores are probabilities.
    pub confidences: Vec<f64>,
    /// Number of outputs that hold a NaN or an infinity.
    pub non_finite: usize,
    /// Number of outputs that hold a NaN.
    pub nan: usize,
}

struct RowScore {
    best: Option<usize>,
    confidence: Option<f64>,
}

fn read_scores(tensor: &Tensor) -> Vec<RowScore> {
    let [_, width] = tensor.shape[..] else { return Vec::new() };
    // One column is a regression or a single score, from which no class can be read.
    if width < 2 {
        return Vec::new();
    }
    match &tensor.data {
        TensorData::F32(v) => {
            v.chunks_exact(width).map(|row| score_row(row.iter().map(|x| f64::from(*x)))).collect()
        }
        TensorData::F64(v) => {
            v.chunks_exact(width).map(|row| score_row(row.iter().copied())).collect()
        }
        _ => Vec::new(),
    }
}

fn score_row(row: impl Iterator<Item = f64>) -> RowScore {
    let (mut best, mut sum, mut probabilities) = (None::<(usize, f64)>, 0.0, true);
    for (i, x) in row.enumerate() {
        sum += x;
        probabilities &= (0.0..=1.000_001).contains(&x);
        // Comparisons with NaN are false, so a NaN is never the maximum.
        if !x.is_nan() && best.is_none_or(|(_, b)| x > b) {
            best = Some((i, x));
        }
    }
    // Raw scores (logits, margins) are not confidences.
    let confidence = best.map(|(_, b)| b).filter(|_| probabilities && (sum - 1.0).abs() < 0.01);
    RowScore { best: best.map(|(i, _)| i), confidence }
}

#[cfg(test)]
mod tests {
    use slipway_runtime_engine::signature::TensorSignature;

    use super::*;

    fn spec(name: &str, datatype: DataType, shape: &[Option<usize>]) -> TensorSignature {
        TensorSignature { name: name.into(), datatype, shape: shape.to_vec(), axis: None }
    }

    fn reader(outputs: Vec<TensorSignature>) -> OutputReader {
        OutputReader::new(&ModelSignature { inputs: vec![], outputs })
    }

    #[test]
    fn a_label_output_wins_over_the_highest_score() {
        let r = reader(vec![
            spec("output_label", DataType::I64, &[None]),
            spec("output_probability", DataType::F32, &[None, Some(2)]),
        ]);
        let outputs = [
            Tensor { shape: vec![2], data: TensorData::I64(vec![7, 9]) },
            Tensor { shape: vec![2, 2], data: TensorData::F32(vec![0.25, 0.75, 1.0, 0.0]) },
        ];
        let p = r.read(&outputs);
        assert_eq!(p.labels, [Some(PredictedLabel::Number(7)), Some(PredictedLabel::Number(9))]);
        assert_eq!(p.confidences, [0.75, 1.0]);
        assert_eq!(p.non_finite, 0);
    }

    #[test]
    fn logits_give_a_label_and_no_confidence() {
        let r = reader(vec![spec("logits", DataType::F32, &[None, Some(3)])]);
        let p = r.read(&[Tensor {
            shape: vec![2, 3],
            data: TensorData::F32(vec![-1.0, 5.0, 2.0, f32::NAN, f32::NAN, f32::NAN]),
        }]);
        assert_eq!(p.labels, [Some(PredictedLabel::Number(1)), None]);
        assert!(p.confidences.is_empty());
        assert_eq!((p.non_finite, p.nan), (1, 1));
        let p = r
            .read(&[Tensor { shape: vec![1, 2], data: TensorData::F32(vec![f32::INFINITY, 0.0]) }]);
        assert_eq!((p.non_finite, p.nan), (1, 0));
    }

    #[test]
    fn regressions_have_neither() {
        let r = reader(vec![spec("variable", DataType::F32, &[None, Some(1)])]);
        let p = r.read(&[Tensor { shape: vec![1, 1], data: TensorData::F32(vec![0.5]) }]);
        assert!(p.labels.is_empty() && p.confidences.is_empty());
    }
}
