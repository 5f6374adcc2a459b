//! The program with real models, files and ONNX Runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "these are tests, helpers included")]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use parquet::data_type::{DoubleType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use serde_json::Value;
use slipway_provision::BuildCache;

const BINARY: &str = env!("CARGO_BIN_EXE_kubectl-slipway");

fn library() -> PathBuf {
    if let Some(path) = std::env::var_os("ORT_DYLIB_PATH") {
        return path.into();
    }
    slipway_provision::libraries::ensure_onnx_runtime(
        &BuildCache::from_env().unwrap(),
        &slipway_provision::workspace_root(),
    )
    .unwrap()
}

fn model(name: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../serving-runtime/tests/models");
    dir.join(format!("{name}.onnx")).display().to_string()
}

fn run(dir: &Path, args: &[&str]) -> Output {
    Command::new(BINARY)
        .arg("baseline")
        .args(args)
        .current_dir(dir)
        .env("ORT_DYLIB_PATH", library())
        .output()
        .unwrap()
}

fn fails(dir: &Path, args: &[&str], part: &str) {
    let output = run(dir, args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && text.contains(part), "{part:?} is not in {text:?}");
}

/// Rows of the model `classifier`: the class is the greatest of the first three, every eighth label
/// is wrong.
fn rows(count: usize, shift: f64) -> Vec<([f64; 4], i64)> {
    let value = |i: usize, k: usize| ((i * (k + 3) * 7919) % 1000) as f64 / 250.0;
    let row = |i| {
        let x = [value(i, 0) + shift, value(i, 1), value(i, 2), value(i, 3)];
        let best = (0..3).max_by(|a, b| x[*a].total_cmp(&x[*b])).unwrap();
        (x, if i % 8 == 0 { 10 } else { 10 * (best as i64 + 1) })
    };
    (0..count).map(row).collect()
}

fn csv(path: &Path, rows: &[([f64; 4], i64)]) {
    let mut text = String::from("a,b,c,d,label\n");
    for ([a, b, c, d], label) in rows {
        writeln!(text, "{a},{b},{c},{d},{label}").unwrap();
    }
    std::fs::write(path, text).unwrap();
}

fn parquet(path: &Path, rows: &[([f64; 4], i64)]) {
    let schema = "message rows { required double a; required double b; required double c; required double d; required int64 label; }";
    let schema = Arc::new(parquet::schema::parser::parse_message_type(schema).unwrap());
    let properties =
        WriterProperties::builder().set_compression(parquet::basic::Compression::SNAPPY).build();
    let file = std::fs::File::create(path).unwrap();
    let mut writer = SerializedFileWriter::new(file, schema, Arc::new(properties)).unwrap();
    let mut group = writer.next_row_group().unwrap();
    for k in 0..4 {
        let values: Vec<f64> = rows.iter().map(|r| r.0[k]).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<DoubleType>().write_batch(&values, None, None).unwrap();
        column.close().unwrap();
    }
    let labels: Vec<i64> = rows.iter().map(|r| r.1).collect();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<Int64Type>().write_batch(&labels, None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.close().unwrap();
}

#[test]
fn csv_and_parquet_make_the_same_baseline_and_drift_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    csv(&dir.join("rows.csv"), &rows(2000, 0.0));
    parquet(&dir.join("rows.parquet"), &rows(2000, 0.0));
    for kind in ["csv", "parquet"] {
        let (data, out) = (format!("rows.{kind}"), format!("{kind}.json"));
        let output = run(
            dir,
            &["--model", &model("classifier"), "--data", &data, "--label", "label", "-o", &out],
        );
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("2000 rows, 4 features, 16 golden requests, calibrated on 2000 labels"),
            "{text}"
        );
    }
    let read = |name: &str| {
        serde_json::from_slice::<Value>(&std::fs::read(dir.join(name)).unwrap()).unwrap()
    };
    let baseline = read("csv.json");
    assert_eq!(baseline, read("parquet.json"));
    assert_eq!(baseline["features"][3]["name"], "d");
    assert_eq!(baseline["predictions"]["bins"]["values"].as_array().unwrap().len(), 3);

    csv(&dir.join("moved.csv"), &rows(500, 1.0));
    let check = |data: &str, more: &[&str]| {
        let args =
            ["check", "--baseline", "csv.json", "--data", data, "--ignore", "label", "--exit-code"];
        let output = run(dir, &[&args, more].concat());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, text) = check("rows.parquet", &["--model", &model("classifier")]);
    assert!(code == Some(0) && text.contains("0 of 6 drifted"), "{text}");
    let (code, text) = check("moved.csv", &[]);
    assert!(code == Some(3) && text.contains("500 rows against 2000"), "{text}");
    let drifted: Vec<_> = text.lines().filter(|l| l.ends_with("  drift")).collect();
    assert!(drifted.len() == 1 && drifted[0].starts_with("a "), "{text}");
}

#[test]
fn errors_name_the_place_and_the_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    let classifier = model("classifier");
    let write = |text: &str| std::fs::write(dir.join("x.csv"), text).unwrap();
    let make = ["--model", &classifier, "--data", "x.csv"];
    write("a,b,c,d\n1,2,3,4\n1,two,3,4\n");
    fails(dir, &make, "row 2, column \"b\": \"two\"; the model wants FP32");
    write("a,b,c\n1,2,3\n");
    fails(dir, &make, "takes 4 values a row and the data has 3 columns");
    write("a,b,c,d\n1,2,3,4\n1,2,3\n");
    fails(dir, &make, "row 2");
    write("a,b,c,d\n");
    fails(dir, &make, "there are no rows");
    write("a,b,c,d\n1,2,3,4\n");
    fails(dir, &[&make[..], &["--label", "y"]].concat(), "there is no column \"y\"");
    fails(dir, &[&make[..], &["--golden", "999"]].concat(), "at most 64");
    fails(dir, &["--model", &classifier, "--data", "x.txt"], ".csv or .parquet");
    fails(dir, &["--model", "none.onnx", "--data", "x.csv"], "there is no file");
    write("rounds\n1.5\n");
    fails(dir, &["--model", &model("slow"), "--data", "x.csv"], "\"1.5\"; the model wants INT64");
    write("a,b,c,d,label\n1,2,3,4,cat\n");
    fails(dir, &[&make[..], &["--label", "label"]].concat(), "as the model names them");
    fails(dir, &["check", "--baseline", "x.csv", "--data", "x.csv"], "kubectl slipway baseline");
}

#[test]
fn several_inputs_and_regressions_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::from(
        "INPUT1[3],INPUT1[2],INPUT1[1],INPUT1[0],INPUT0[0],INPUT0[1],INPUT0[2],INPUT0[3]\n",
    );
    (0..50).for_each(|i| writeln!(text, "{i},1,2,3,4,5,6,{}", i * 2).unwrap());
    std::fs::write(dir.path().join("x.csv"), text).unwrap();
    let output = run(dir.path(), &["--model", &model("simple"), "--data", "x.csv"]);
    assert!(output.status.success(), "{output:?}");
    let baseline: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("baseline.json")).unwrap()).unwrap();
    let last = &baseline["features"][7];
    assert_eq!(
        (&last["name"], &last["input"], &last["column"]),
        (&"INPUT1[3]".into(), &"INPUT1".into(), &3.into())
    );
    assert_eq!(
        baseline["golden"]["requests"][1]["inputs"][0]["data"],
        serde_json::json!([4, 5, 6, 6])
    );
    assert!(baseline.get("scores").is_none());

    // A regression model without a batch axis.
    std::fs::write(dir.path().join("x.csv"), "rounds\n1\n2\n3\n").unwrap();
    let output = run(dir.path(), &["--model", &model("slow"), "--data", "x.csv", "--golden", "2"]);
    assert!(output.status.success(), "{output:?}");
    let baseline: Value =
        serde_json::from_slice(&std::fs::read(dir.path().join("baseline.json")).unwrap()).unwrap();
    assert_eq!(baseline["predictions"]["bins"]["kind"], "numeric");
}
