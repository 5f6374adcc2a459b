"""Makes the models of the benches and one request for each: python models.py OUT_DIR.

tree30: gradient boosting, 100 trees, 30 values (breast cancer); about 4 us in ONNX Runtime.
digits: random forest, 100 trees, 64 values (digits).
mlp: 784 -> 256 -> 10; about 12 us.
cnn: three convolutions over 3x64x64, 12,288 values; about 200 us. Random weights: only the work counts.
cnn-wide: the same with twice the filters; about 700 us.
"""
import json
import pathlib
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier

OUT = pathlib.Path(sys.argv[1])
OUT.mkdir(parents=True, exist_ok=True)


def save(name, model, row):
    onnx.save(model, OUT / f"{name}.onnx")
    spec = {"input": model.graph.input[0].name, "shape": list(row.shape), "data": [float(v) for v in row.ravel()]}
    (OUT / f"{name}.json").write_text(json.dumps(spec))


def sklearn_model(name, model, data):
    x, y = data(return_X_y=True)
    x = x.astype(np.float32)
    model.fit(x, y)
    save(name, to_onnx(model, x[:1], target_opset=17, options={id(model): {"zipmap": False}}), x[:1])


def dense(name, rng, sizes):
    nodes, weights, before = [], [], "x"
    for i, (a, b) in enumerate(zip(sizes, sizes[1:])):
        weights.append(numpy_helper.from_array((rng.standard_normal((a, b)) / np.sqrt(a)).astype(np.float32), f"w{i}"))
        weights.append(numpy_helper.from_array(np.zeros(b, np.float32), f"b{i}"))
        nodes.append(helper.make_node("Gemm", [before, f"w{i}", f"b{i}"], [f"g{i}"]))
        last = i == len(sizes) - 2
        nodes.append(helper.make_node("Softmax" if last else "Relu", [f"g{i}"], ["probabilities" if last else f"r{i}"]))
        before = f"r{i}"
    finish(name, nodes, weights, ["N", sizes[0]], sizes[-1], rng.random((1, sizes[0]), dtype=np.float32))


def conv(name, rng, widths):
    nodes, weights, before, channels = [], [], "x", 3
    for i, filters in enumerate(widths):
        kernel = (rng.standard_normal((filters, channels, 3, 3)) / np.sqrt(channels * 9)).astype(np.float32)
        weights.append(numpy_helper.from_array(kernel, f"k{i}"))
        nodes.append(helper.make_node("Conv", [before, f"k{i}"], [f"c{i}"], kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]))
        nodes.append(helper.make_node("Relu", [f"c{i}"], [f"r{i}"]))
        before, channels = f"r{i}", filters
    nodes.append(helper.make_node("GlobalAveragePool", [before], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["flat"]))
    weights.append(numpy_helper.from_array((rng.standard_normal((channels, 10)) / 11).astype(np.float32), "w"))
    nodes.append(helper.make_node("MatMul", ["flat", "w"], ["scores"]))
    nodes.append(helper.make_node("Softmax", ["scores"], ["probabilities"]))
    finish(name, nodes, weights, ["N", 3, 64, 64], 10, rng.random((1, 3, 64, 64), dtype=np.float32))


def finish(name, nodes, weights, shape, classes, row):
    graph = helper.make_graph(
        nodes,
        name,
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes])],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    save(name, model, row)


sklearn_model("tree30", GradientBoostingClassifier(n_estimators=100, random_state=1), load_breast_cancer)
sklearn_model("digits", RandomForestClassifier(n_estimators=100, random_state=1), load_digits)
dense("mlp", np.random.default_rng(1), [784, 256, 10])
conv("cnn", np.random.default_rng(2), [32, 64, 128])
conv("cnn-wide", np.random.default_rng(3), [64, 128, 256])
