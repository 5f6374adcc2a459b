"""Makes the tiny ONNX models of the tests. Needs `pip install onnx numpy`; the models are committed, so run it only to change them."""

import pathlib

import numpy as np
import onnx
from onnx import TensorProto as T
from onnx import helper as h
from onnx import numpy_helper

HERE = pathlib.Path(__file__).parent


def value(name, kind, shape):
    return h.make_tensor_value_info(name, kind, shape)


def const(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


def save(name, nodes, inputs, outputs, constants=(), ml=False):
    graph = h.make_graph(nodes, name, inputs, outputs, list(constants))
    opsets = [h.make_opsetid("", 17)] + ([h.make_opsetid("ai.onnx.ml", 3)] if ml else [])
    model = h.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="slipway-tests")
    onnx.checker.check_model(model)
    (HERE / f"{name}.onnx").write_bytes(model.SerializeToString(deterministic=True))


# y = 2x + 1 for rows of two; NaN passes through, sqrt of a negative number makes one.
save("affine",
     [h.make_node("Mul", ["x", "two"], ["d"]), h.make_node("Add", ["d", "one"], ["y"]), h.make_node("Sqrt", ["x"], ["root"])],
     [value("x", T.FLOAT, ["N", 2])], [value("y", T.FLOAT, ["N", 2]), value("root", T.FLOAT, ["N", 2])],
     [const("two", np.float32([2])), const("one", np.float32([1]))])

# The shape of what scikit-learn converts to with zipmap=False: label and probabilities of three classes.
save("classifier",
     [h.make_node("LinearClassifier", ["X"], ["label", "scores"], domain="ai.onnx.ml", classlabels_ints=[10, 20, 30],
                  coefficients=[1.0, 0, 0, 0, 0, 1.0, 0, 0, 0, 0, 1.0, 0], intercepts=[0.0, 0.0, 0.0], multi_class=1,
                  post_transform="NONE"),
      h.make_node("Softmax", ["scores"], ["probabilities"], axis=1)],
     [value("X", T.FLOAT, [None, 4])], [value("label", T.INT64, [None]), value("probabilities", T.FLOAT, [None, 3])], ml=True)

# Two inputs, as in Triton's own smoke model.
save("simple",
     [h.make_node("Add", ["INPUT0", "INPUT1"], ["OUTPUT0"]), h.make_node("Sub", ["INPUT0", "INPUT1"], ["OUTPUT1"])],
     [value("INPUT0", T.INT32, ["N", 4]), value("INPUT1", T.INT32, ["N", 4])],
     [value("OUTPUT0", T.INT32, ["N", 4]), value("OUTPUT1", T.INT32, ["N", 4])])

# Every datatype, passed through.
kinds = {"bool": T.BOOL, "u8": T.UINT8, "u16": T.UINT16, "u32": T.UINT32, "u64": T.UINT64, "i8": T.INT8, "i16": T.INT16, "i32": T.INT32,
         "i64": T.INT64, "f16": T.FLOAT16, "f32": T.FLOAT, "f64": T.DOUBLE, "text": T.STRING}
save("types", [h.make_node("Identity", [k], [f"{k}_out"]) for k in kinds],
     [value(k, t, ["N"]) for k, t in kinds.items()], [value(f"{k}_out", t, ["N"]) for k, t in kinds.items()])

# The mean over the batch: rows are not independent, and no axis of the output follows them.
save("mean", [h.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=0)],
     [value("x", T.FLOAT, ["N", 2])], [value("m", T.FLOAT, [2])])

# Subtracts the mean over the batch: rows are not independent, and shapes do not show it.
save("centre", [h.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1), h.make_node("Sub", ["x", "m"], ["y"])],
     [value("x", T.FLOAT, ["N", 2])], [value("y", T.FLOAT, ["N", 2])])

# Slow on purpose, by work: a loop of matrix products whose length is the first value of the input.
body = h.make_graph(
    [h.make_node("MatMul", ["s_in", "weights"], ["s_out"]), h.make_node("Identity", ["c_in"], ["c_out"])], "body",
    [value("i", T.INT64, []), value("c_in", T.BOOL, []), value("s_in", T.FLOAT, [64, 64])],
    [value("c_out", T.BOOL, []), value("s_out", T.FLOAT, [64, 64])])
save("slow",
     [h.make_node("ConstantOfShape", ["square"], ["blank"]), h.make_node("EyeLike", ["blank"], ["weights"]),
      h.make_node("ReduceMax", ["rounds"], ["trips"], keepdims=0), h.make_node("Loop", ["trips", "yes", "weights"], ["end"], body=body),
      h.make_node("ReduceMax", ["end"], ["m"], keepdims=0), h.make_node("Cast", ["rounds"], ["r"], to=T.FLOAT),
      h.make_node("Mul", ["r", "m"], ["y"])],
     [value("rounds", T.INT64, [1])], [value("y", T.FLOAT, [1])],
     [const("yes", np.bool_(True)), const("square", np.int64([64, 64]))])

# Fails on some inputs: an index out of its range.
save("picky", [h.make_node("Gather", ["table", "index"], ["y"], axis=0)],
     [value("index", T.INT64, ["N"])], [value("y", T.FLOAT, ["N"])], [const("table", np.float32([1, 2, 3]))])

# What a converter makes without zipmap=False: a sequence of maps, which has no place in the protocol.
save("zipmap", [h.make_node("ZipMap", ["x"], ["maps"], domain="ai.onnx.ml", classlabels_int64s=[0, 1])],
     [value("x", T.FLOAT, ["N", 2])],
     [h.make_value_info("maps", h.make_sequence_type_proto(h.make_map_type_proto(T.INT64, h.make_tensor_type_proto(T.FLOAT, None))))],
     ml=True)

# Small on disk and 4 GiB in memory, as soon as the constant is folded.
save("bomb", [h.make_node("ConstantOfShape", ["shape"], ["blank"]), h.make_node("ReduceMax", ["blank"], ["m"], keepdims=0),
              h.make_node("Add", ["x", "m"], ["y"])],
     [value("x", T.FLOAT, ["N"])], [value("y", T.FLOAT, ["N"])], [const("shape", np.int64([1 << 30]))])

# 16 KiB for each row of one number, on the way to one number.
save("wide", [h.make_node("MatMul", ["x", "w"], ["h"]), h.make_node("ReduceMax", ["h"], ["y"], axes=[1], keepdims=1)],
     [value("x", T.FLOAT, ["N", 1])], [value("y", T.FLOAT, ["N", 1])], [const("w", np.arange(4096, dtype=np.float32).reshape(1, 4096))])
