//! Graphs in a short notation: `X: N,3` is an input, `w: 3x4` a constant of that shape, `axes: 1 =
//! 0,2` a constant list of integers, `Y, Z = Split(X) axis=1 split=1,2` a node.

use super::*;
use crate::graph::ValueInfo;

fn names_of(text: &str) -> Vec<String> {
    text.split(',').map(|name| name.trim().to_owned()).collect()
}

fn numbers_of(text: &str) -> Vec<i64> {
    text.split(',').map(|number| number.trim().parse().unwrap()).collect()
}

fn attribute(text: &str) -> NodeAttribute {
    if let Some(number) = text.strip_prefix("tensor:") {
        return NodeAttribute::Constant(ConstantTensor {
            shape: vec![1],
            integers: Some(numbers_of(number)),
            equals_one: None,
        });
    }
    match text.split(',').map(|number| number.parse::<i64>()).collect::<Result<Vec<_>, _>>() {
        Ok(numbers) if text.contains(',') || text.starts_with('+') => {
            NodeAttribute::Integers(numbers)
        }
        Ok(numbers) => NodeAttribute::Integer(numbers[0]),
        Err(_) => NodeAttribute::Text(text.to_owned()),
    }
}

fn node(outputs: &str, call: &str) -> GraphNode {
    let (operator, rest) = call.split_once('(').unwrap();
    let (inputs, attributes) = rest.split_once(')').unwrap();
    let (domain, op_type) = operator.trim().rsplit_once('.').unwrap_or(("", operator.trim()));
    let attributes = attributes.split_whitespace().map(|pair| {
        let (name, value) = pair.split_once('=').unwrap();
        // A list of one number is written with a sign.
        (name.to_owned(), attribute(value))
    });
    GraphNode {
        name: String::new(),
        op_type: op_type.into(),
        domain: domain.into(),
        inputs: if inputs.trim().is_empty() { vec![] } else { names_of(inputs) },
        outputs: names_of(outputs),
        attributes: attributes.collect(),
    }
}

fn dimension(text: &str) -> Dimension {
    match text.trim() {
        "?" => Dimension::Open,
        number if number.parse::<i64>().is_ok() => Dimension::Fixed(number.parse().unwrap()),
        name => Dimension::Named(name.into()),
    }
}

/// A model whose outputs are those of the last node.
fn model(version: i64, lines: &[&str]) -> OnnxModel {
    let mut graph = OnnxGraph::default();
    for line in lines {
        if let Some((outputs, call)) =
            line.split_once(" = ").filter(|(left, _)| !left.contains(':'))
        {
            graph.nodes.push(node(outputs, call));
            continue;
        }
        let (name, shape) = line.split_once(':').unwrap();
        let (shape, values) =
            shape.split_once('=').map_or((shape, None), |(shape, values)| (shape, Some(values)));
        let is_constant = values.is_some() || shape.contains('x') || shape.trim() == "scalar";
        if is_constant {
            let shape: Vec<i64> = match shape.trim() {
                "scalar" => vec![],
                shape => shape
                    .split('x')
                    .filter(|it| !it.is_empty())
                    .map(|size| size.parse().unwrap())
                    .collect(),
            };
            let constant =
                ConstantTensor { shape, integers: values.map(numbers_of), equals_one: None };
            graph.constants.insert(name.into(), constant);
        } else {
            let shape = Some(shape.split(',').map(dimension).collect());
            graph.inputs.push(ValueInfo { name: name.into(), shape });
        }
    }
    let outputs = graph.nodes.last().unwrap().outputs.clone();
    graph.outputs = outputs.into_iter().map(|name| ValueInfo { name, shape: None }).collect();
    let opsets = [(String::new(), version), ("ai.onnx.ml".into(), 3)].into();
    OnnxModel { opsets, graph, functions: BTreeMap::new() }
}

#[track_caller]
fn apart(lines: &[&str]) {
    assert_eq!(prove_row_independence(&model(17, lines)), Ok(()), "{lines:?}");
}

#[track_caller]
fn mixes(lines: &[&str], why: &str) {
    let reason = prove_row_independence(&model(17, lines)).expect_err("rows are not kept apart");
    assert!(reason.contains(why), "{lines:?}: {reason}");
}

#[test]
fn the_mean_over_the_rows_mixes_them() {
    mixes(&["X: N,3", "m = ReduceMean(X) axes=+0", "Y = Sub(X, m)"], "along the axis of the rows");
    apart(&["X: N,3", "m = ReduceMean(X) axes=+1", "Y = Sub(X, m)"]);
    mixes(&["X: N,3", "Y = ReduceMax(X) keepdims=1"], "over all axes");
}

#[test]
fn what_works_along_an_axis_must_not_work_along_that_of_the_rows() {
    for operator in ["Softmax", "LogSoftmax", "Hardmax", "LpNormalization"] {
        mixes(&["X: N,3", &format!("Y = {operator}(X) axis=0")], "along the axis of the rows");
        apart(&["X: N,3", &format!("Y = {operator}(X) axis=-1")]);
    }
    mixes(&["X: N,3", "a: scalar = 0", "Y = CumSum(X, a)"], "along the axis of the rows");
    apart(&["X: N,3", "a: scalar = 1", "Y = CumSum(X, a)"]);
    mixes(&["X: N,3", "k: 1 = 1", "Y, I = TopK(X, k) axis=0"], "along the axis of the rows");
    apart(&["X: N,3", "k: 1 = 1", "Y, I = TopK(X, k) axis=1"]);
    mixes(&["X: N,3", "Y = ArgMax(X)"], "along the axis of the rows");
    apart(&["X: N,3", "Y = ArgMax(X) axis=1 keepdims=0"]);
    mixes(&["X: N,3,4,4", "Y = MeanVarianceNormalization(X)"], "along the axis of the rows");
    // Before opset 13 softmax combined all axes from its own on.
    let old = |axis: &str| {
        prove_row_independence(&model(12, &["X: N,3,4", &format!("Y = Softmax(X) axis={axis}")]))
    };
    assert!(old("0").is_err() && old("1").is_ok());
}

#[test]
fn products_keep_rows_apart_unless_they_sum_over_them() {
    apart(&["X: N,3", "w: 3x4", "b: 4x", "p = MatMul(X, w)", "Y = Add(p, b)"]);
    apart(&["X: N,3", "w: 4x3", "b: 4x", "Y = Gemm(X, w, b) transB=1"]);
    mixes(&["X: N,3", "t = Transpose(X) perm=1,0", "Y = MatMul(t, X)"], "sums over the rows");
    mixes(&["X: N,3", "t = Transpose(X) perm=1,0", "Y = MatMul(X, t)"], "each row by every other");
    apart(&["X: N,2,3", "t = Transpose(X) perm=0,2,1", "Y = MatMul(X, t)"]);
    mixes(&["X: N,3", "w: 3x", "Y = MatMul(X, w)"], "by a vector");
    mixes(&["X: N,3", "Y = Einsum(X, X) equation=ij,kj->ik"], "another axis");
    mixes(&["X: N,3", "Y = Einsum(X, X) equation=ij,ij->j"], "sums over the rows");
    apart(&["X: N,3", "Y = Einsum(X, X) equation=ij,ij->i"]);
}

#[test]
fn an_element_for_each_row_is_no_weight() {
    mixes(&["X: N,3", "w: 5x3", "Y = Mul(X, w)"], "an element for each of them");
    apart(&["X: N,3", "w: 1x3", "Y = Mul(X, w)"]);
    mixes(&["X: N", "Z: N,3", "Y = Add(X, Z)"], "another axis");
}

#[test]
fn the_number_of_rows_is_no_part_of_an_answer() {
    mixes(
        &[
            "X: N,3",
            "s = Shape(X)",
            "i: scalar = 0",
            "n = Gather(s, i)",
            "f = Cast(n) to=1",
            "Y = Div(X, f)",
        ],
        "depends on their number",
    );
    apart(&[
        "X: N,3",
        "s = Shape(X)",
        "i: scalar = 1",
        "n = Gather(s, i)",
        "f = Cast(n) to=1",
        "Y = Div(X, f)",
    ]);
    mixes(
        &[
            "X: N",
            "s = Shape(X)",
            "i: scalar = 0",
            "n = Gather(s, i)",
            "z: scalar = 0",
            "o: scalar = 1",
            "r = Range(z, n, o)",
            "f = Cast(r) to=1",
            "Y = Add(X, f)",
        ],
        "depends on their number",
    );
}

#[test]
fn picking_and_cutting_among_rows_mixes_them() {
    mixes(&["X: N,3", "i: 1 = 0", "Y = Gather(X, i) axis=0"], "picks among the rows");
    apart(&["X: N,3", "i: 2 = 0,2", "Y = Gather(X, i) axis=1"]);
    apart(&["I: N,5", "w: 100x8", "Y = Gather(w, I) axis=0"]);
    mixes(&["X: N,3", "a: 1 = 0", "b: 1 = -1", "Y = Slice(X, a, b)"], "cuts among the rows");
    mixes(&["X: N,3", "r: 2 = 2,1", "Y = Tile(X, r)"], "one behind the other");
    mixes(&["X: N,3", "Y = Concat(X, X) axis=0"], "along the axis of the rows");
    apart(&["X: N,3", "Y = Concat(X, X) axis=1"]);
    mixes(&["X: N,3", "Y = NonZero(X)"], "not known");
    mixes(&["X: N,3", "Y = Squeeze(X)"], "that of a single row");
    mixes(&["X: N,3", "I: N,1", "Y = GatherElements(X, I) axis=0"], "picks among the rows");
    mixes(&["X: N,3", "i: 2x1", "Y = GatherND(X, i)"], "picks among the rows");
    apart(&[
        "X: N,3,4",
        "i: 2x1",
        "t = Transpose(X) perm=1,0,2",
        "g = GatherND(t, i)",
        "Y = Transpose(g) perm=1,0,2",
    ]);
    mixes(&["X: N,3", "i: 2x1", "t = Transpose(X) perm=1,0", "Y = GatherND(t, i)"], "along axis 1");
    apart(&["I: N,5,2", "w: 7x8x3", "Y = GatherND(w, I)"]);
    mixes(
        &["I: N,2", "w: 7x8x3", "t = Transpose(I) perm=1,0", "Y = GatherND(w, t)"],
        "how many axes it picks is not known",
    );
    apart(&["X: N,3", "I: N,1", "Y = GatherElements(X, I) axis=1"]);
}

#[test]
fn shapes_may_merge_rows_with_other_axes_and_must_part_them_again() {
    apart(&[
        "X: N,4,3",
        "a: 2 = -1,3",
        "m = Reshape(X, a)",
        "w: 3x5",
        "p = MatMul(m, w)",
        "b: 3 = -1,4,5",
        "Y = Reshape(p, b)",
    ]);
    mixes(&["X: N,4,3", "a: 2 = -1,3", "Y = Reshape(X, a)"], "does not follow the rows");
    mixes(&["X: N,4", "a: 2 = 4,-1", "Y = Reshape(X, a)"], "one piece");
    mixes(
        &["X: N,4,3", "a: 2 = -1,3", "m = Reshape(X, a)", "Y = ReduceSum(m) keepdims=0"],
        "over all axes",
    );
    apart(&["X: N,4,3", "Y = Flatten(X)"]);
    mixes(&["X: N,4,3", "Y = Flatten(X) axis=2"], "does not follow the rows");
    // Transposing moves the rows; reshaping to the original shape would distribute their elements
    // differently.
    mixes(
        &["X: N,4", "t = Transpose(X) perm=1,0", "a: 2 = -1,4", "Y = Reshape(t, a)"],
        "one piece",
    );
}

#[test]
fn layers_keep_rows_apart_along_the_first_axis() {
    apart(&[
        "X: N,3,8,8",
        "w: 4x3x3x3",
        "c = Conv(X, w)",
        "r = Relu(c)",
        "p = GlobalAveragePool(r)",
        "Y = Flatten(p)",
    ]);
    let cnn = [
        "X: N,1,8,8",
        "w: 4x1x3x3",
        "c = Conv(X, w)",
        "p = MaxPool(c) kernel_shape=2,2 strides=2,2",
    ];
    apart(
        &[&cnn[..], &["a: 2 = -1,36", "f = Reshape(p, a)", "v: 36x10", "Y = MatMul(f, v)"]]
            .concat(),
    );
    mixes(&[&cnn[..], &["a: 2 = -1,72", "Y = Reshape(p, a)"]].concat(), "is not followed");
    mixes(
        &["X: N,3,8,8", "w: 4x3x3x3", "t = Transpose(X) perm=1,0,2,3", "Y = Conv(t, w)"],
        "first axis of its input",
    );
    let norm = ["X: N,3,8,8", "s: 3x", "b: 3x", "m: 3x", "v: 3x"];
    apart(&[&norm[..], &["Y = BatchNormalization(X, s, b, m, v)"]].concat());
    mixes(
        &[&norm[..], &["Y = BatchNormalization(X, s, b, m, v) training_mode=1"]].concat(),
        "mean over the rows",
    );
    mixes(&["X: N,3", "q, s, z = DynamicQuantizeLinear(X)"], "not known");
    let lstm = ["w: 1x16x3", "r: 1x16x4"];
    apart(
        &[
            &["X: N,5,3", "t = Transpose(X) perm=1,0,2"][..],
            &lstm,
            &["a, Y0, c = LSTM(t, w, r) hidden_size=4", "x: 1 = 0", "Y = Squeeze(Y0, x)"],
        ]
        .concat(),
    );
    mixes(
        &[&["X: N,5,3"][..], &lstm, &["a, Y, c = LSTM(X, w, r) hidden_size=4"]].concat(),
        "axis of the batch",
    );
}

#[test]
fn classic_models_take_rows_along_the_first_of_two_axes() {
    apart(&["X: N,3", "s = ai.onnx.ml.Scaler(X)", "l, Y = ai.onnx.ml.TreeEnsembleClassifier(s)"]);
    apart(&[
        "X: N,3",
        "n = ai.onnx.ml.Normalizer(X)",
        "Y = ai.onnx.ml.LinearRegressor(n) targets=1",
    ]);
    mixes(&["X: N", "l, Y = ai.onnx.ml.TreeEnsembleClassifier(X)"], "single row");
    mixes(&["X: N,3", "Y = ai.onnx.ml.ZipMap(X)"], "not known");
}

#[test]
fn inputs_must_agree_on_the_axis_of_the_batch() {
    mixes(&["X: 1,3", "Y = Relu(X)"], "is not open");
    mixes(&["X: N,3", "Z: M,3", "Y = Add(X, Z)"], "another name");
    mixes(&["X: N,N", "Y = Relu(X)"], "stands twice");
    mixes(&["X: N,3", "c: 1 = 0", "Y = Identity(c)"], "does not follow the rows");
    mixes(&["X: N,3", "Y = Custom(X)"], "not known");
}

mod attention;
mod order;
