//! Graphs that exporters produce for attention, class tokens and transformers.

use super::*;

/// Attention with two heads as PyTorch exports it: shapes are computed from the shape of the input.
const TRANSFORMER: &[&str] = &[
    "X: batch,sequence,8",
    "s = Shape(X)",
    "zero: scalar = 0",
    "one: scalar = 1",
    "b = Gather(s, zero)",
    "l = Gather(s, one)",
    "axes: 1 = 0",
    "bu = Unsqueeze(b, axes)",
    "lu = Unsqueeze(l, axes)",
    "two: 1 = 2",
    "four: 1 = 4",
    "eight: 1 = 8",
    "heads = Concat(bu, lu, two, four) axis=0",
    "whole = Concat(bu, lu, eight) axis=0",
    "wq: 8x8",
    "wk: 8x8",
    "wv: 8x8",
    "wo: 8x8",
    "bias: 8x",
    "q0 = MatMul(X, wq)",
    "q1 = Add(q0, bias)",
    "q2 = Reshape(q1, heads)",
    "q = Transpose(q2) perm=0,2,1,3",
    "k0 = MatMul(X, wk)",
    "k2 = Reshape(k0, heads)",
    "k = Transpose(k2) perm=0,2,3,1",
    "v0 = MatMul(X, wv)",
    "v2 = Reshape(v0, heads)",
    "v = Transpose(v2) perm=0,2,1,3",
    "scale: scalar",
    "a0 = MatMul(q, k)",
    "a1 = Div(a0, scale)",
    "a = Softmax(a1) axis=-1",
    "c0 = MatMul(a, v)",
    "c1 = Transpose(c0) perm=0,2,1,3",
    "c2 = Reshape(c1, whole)",
    "c = MatMul(c2, wo)",
    "r = Add(X, c)",
    "g: 8x",
    "beta: 8x",
    "Y = LayerNormalization(r, g, beta) axis=-1",
];

#[test]
fn an_exported_transformer_block_keeps_rows_apart() {
    apart(TRANSFORMER);
    // The same with attention between the rows of a batch.
    let between: Vec<&str> = TRANSFORMER
        .iter()
        .map(
            |line| if *line == "a = Softmax(a1) axis=-1" { "a = Softmax(a1) axis=0" } else { line },
        )
        .collect();
    mixes(&between, "along the axis of the rows");
}

/// A token that is the same for all rows, concatenated before the patches of each image as PyTorch
/// exports it.
#[test]
fn something_expanded_to_the_number_of_rows_may_be_joined_with_them() {
    let expand = [
        "X: N,6,8",
        "s = Shape(X)",
        "zero: scalar = 0",
        "n = Gather(s, zero)",
        "axes: 1 = 0",
        "u = Unsqueeze(n, axes)",
        "open: 1 = -1",
        "target = Concat(u, open, open) axis=0",
        "length = Shape(target)",
        "ones = ConstantOfShape(length) value=tensor:1",
        "minus: scalar = -1",
        "none = Mul(ones, minus)",
        "same = Equal(target, none)",
        "shape = Where(same, ones, target)",
        "token: 1x1x8",
        "e = Expand(token, shape)",
    ];
    apart(&[&expand[..], &["Y = Concat(e, X) axis=1"]].concat());
    mixes(&[&expand[..], &["Y = Concat(e, X) axis=0"]].concat(), "along the axis of the rows");
    // Angles of positions, whose shape the graph computes.
    let angles = [
        "w: 6x",
        "v: 4x",
        "a = Einsum(w, v) equation=i,j->ij",
        "b = Concat(a, a) axis=-1",
        "c = Cos(b)",
    ];
    apart(&[&["X: N,6,8"][..], &angles, &["Y = Mul(X, c)"]].concat());
    mixes(&[&["X: N,8"][..], &angles, &["Y = Mul(X, c)"]].concat(), "an element for each of them");
}

/// The graph of PyTorch's own layer: positions are the first axis, rows are merged with heads, and
/// then positions with rows.
#[test]
fn attention_with_positions_first_keeps_rows_apart() {
    let heads = [
        "X: N,6,8",
        "t = Transpose(X) perm=1,0,2",
        "a: 3 = 6,-1,4",
        "h = Reshape(t, a)",
        "q = Transpose(h) perm=1,0,2",
        "k = Transpose(h) perm=1,2,0",
        "s = MatMul(q, k)",
        "p = Softmax(s) axis=-1",
        "c = MatMul(p, q)",
        "b: 4 = -1,2,6,4",
        "v = Reshape(c, b)",
        "o = Transpose(v) perm=2,0,1,3",
        "f: 2 = -1,8",
        "m = Reshape(o, f)",
        "w: 8x8",
        "bias: 8x",
        "g = Gemm(m, w, bias)",
        "r = Relu(g)",
    ];
    let back =
        ["d: 3 = 6,-1,8", "l = Reshape(r, d)", "y = Transpose(l) perm=1,0,2", "Y = Add(X, y)"];
    apart(&[&heads[..], &back].concat());
    mixes(&[&heads[..], &["d: 3 = -1,6,8", "Y = Reshape(r, d)"]].concat(), "one piece");
    mixes(&[&heads[..], &["Y = Softmax(r) axis=0"]].concat(), "along the axis of the rows");
    // The same number of rows and elements, in another order.
    mixes(&[&heads[..], &["z = Reshape(X, f)", "Y = Add(z, r)"]].concat(), "in another order");
    mixes(
        &[&heads[..], &["z = Reshape(X, f)", "Y = Concat(r, z) axis=1"]].concat(),
        "in another order",
    );
    apart(
        &[
            &heads[..],
            &["z = Mul(r, r)", "l = Reshape(z, d)", "d: 3 = 6,-1,8", "Y = Transpose(l) perm=1,0,2"],
        ]
        .concat(),
    );
    mixes(
        &["X: N,6", "t = Transpose(X) perm=1,0", "f: 1 = -1", "Y = Reshape(t, f)"],
        "does not follow the rows",
    );
}
