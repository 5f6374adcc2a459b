//! Held-out rows: a CSV of a label and the features, with one header line.

use anyhow::{Context, Result, ensure};

/// One row, ready to send.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct LabeledRow {
    /// The true label.
    pub(crate) label: i64,
    /// The tensor in JSON. Rendered once, because the same rows are sent repeatedly.
    pub(crate) input: String,
}

/// Parses all rows. `input` is the name of the model's input.
pub(crate) fn parse_rows(csv: &str, input: &str) -> Result<Vec<LabeledRow>> {
    let mut rows: Vec<LabeledRow> = Vec::new();
    let mut width = None;
    for (number, line) in
        csv.lines().enumerate().skip(1).filter(|(_, line)| !line.trim().is_empty())
    {
        let (row, features) =
            parse_line(line, input).with_context(|| format!("line {}", number + 1))?;
        let first = *width.get_or_insert(features);
        ensure!(
            features == first,
            "line {}: {features} features, the first row has {first}",
            number + 1
        );
        rows.push(row);
    }
    ensure!(!rows.is_empty(), "no rows after the header");
    Ok(rows)
}

fn parse_line(line: &str, input: &str) -> Result<(LabeledRow, usize)> {
    let (label, features) = line.split_once(',').context("no comma")?;
    let label = label.trim().parse().with_context(|| format!("label {label:?}"))?;
    let mut values = Vec::new();
    for text in features.split(',') {
        let value: f32 = text.trim().parse().with_context(|| format!("feature {text:?}"))?;
        ensure!(value.is_finite(), "feature {text:?} is not finite");
        values.push(value);
    }
    let count = values.len();
    let tensor =
        serde_json::json!({"name": input, "datatype": "FP32", "shape": [1, count], "data": values});
    Ok((LabeledRow { label, input: tensor.to_string() }, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_is_read_whole() {
        let csv = include_str!("../../../examples/digits/heldout.csv");
        let rows = parse_rows(csv, "X").unwrap();
        assert_eq!(rows.len(), 899);
        assert!(rows.iter().all(|row| (0..10).contains(&row.label)));
        let tensor: serde_json::Value = serde_json::from_str(&rows[0].input).unwrap();
        assert_eq!(tensor["data"].as_array().unwrap().len(), 64);
        assert_eq!(tensor["shape"], serde_json::json!([1, 64]));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_line() {
        for (csv, message) in [
            ("label,a\n", "no rows after the header"),
            ("label,a\n1,2\nx,3\n", "line 3"),
            ("label,a\n1,2\n1,3,4\n", "line 3: 2 features, the first row has 1"),
            ("label,a\n1,NaN\n", "line 2"),
            ("label\n1\n", "line 2"),
        ] {
            let error = format!("{:#}", parse_rows(csv, "X").unwrap_err());
            assert!(error.contains(message), "{error}");
        }
    }
}
