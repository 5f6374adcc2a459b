"""Changes to an exported ONNX graph which make the misbehaving versions of the example.

Every function takes the exported model, leaves it alone and returns a changed copy with the same inputs and outputs,
so that all versions are interchangeable for a client and for the operator.
"""

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

# Where ink is looked up by `with_ink_table`: two pixels in the middle of the image. 44 % of all rows have full ink
# in one of them.
TABLE_COLUMNS = (35, 36)
INK_LEVELS = 17  # the scans count ink from 0 to 16, both included

# `with_slow_smoothing`: iterations and side of the square matrices. About two seconds on one core of a server.
SLOW_SIDE = 384
SLOW_STEPS = 1800


def with_permuted_columns(model: onnx.ModelProto, order: np.ndarray) -> onnx.ModelProto:
    """The model reads its features in the wrong order: the classical bug between training and serving."""
    changed = _with_new_input(model, "X_permuted")
    changed.graph.initializer.append(numpy_helper.from_array(order.astype(np.int64), "column_order"))
    changed.graph.node.insert(0, helper.make_node("Gather", ["X", "column_order"], ["X_permuted"], axis=1))
    return _checked(changed)


def with_ink_table(model: onnx.ModelProto, levels: int) -> onnx.ModelProto:
    """Looks the ink of some pixels up in a table of `levels` entries before the model sees them.

    With INK_LEVELS entries this changes nothing. One entry short, every row whose ink reaches 16 there makes ONNX Runtime
    fail, while the zeros of a warm-up pass: a bug that only real traffic finds.
    """
    changed = _with_new_input(model, "X_looked_up")
    first, last = TABLE_COLUMNS[0], TABLE_COLUMNS[-1] + 1
    constants = {
        "ink_table": np.arange(levels, dtype=np.float32),
        "ink_splits": np.array([first, last - first, 64 - last], dtype=np.int64),
    }
    nodes = [
        helper.make_node("Split", ["X", "ink_splits"], ["ink_before", "ink_raw", "ink_after"], axis=1),
        helper.make_node("Cast", ["ink_raw"], ["ink_level"], to=TensorProto.INT64),
        helper.make_node("Gather", ["ink_table", "ink_level"], ["ink_found"], axis=0),
        helper.make_node("Concat", ["ink_before", "ink_found", "ink_after"], ["X_looked_up"], axis=1),
    ]
    return _prepended(changed, nodes, constants)


def with_slow_smoothing(model: onnx.ModelProto) -> onnx.ModelProto:
    """Multiplies the input by one, the long way: the mean of a stochastic matrix after many steps of a Markov chain.

    The chain runs only when there is ink, so warm-up with zeros is quick and the first real row is not.
    It is a Loop of small products, not one large product, so that a server can stop a run between two steps.
    """
    changed = _with_new_input(model, "X_smoothed")
    constants = {
        "slow_start": np.float32(0.0),
        "slow_limit": np.float32(SLOW_SIDE),
        "slow_delta": np.float32(1.0),
        "slow_column": np.array([1], dtype=np.int64),
        "slow_row": np.array([0], dtype=np.int64),
        "slow_steps": np.int64(SLOW_STEPS),
        "slow_side": np.float32(SLOW_SIDE),
        "slow_zero": np.float32(0.0),
    }
    nodes = [
        # The chain: softmax over cos(i * j), every row sums to one.
        helper.make_node("Range", ["slow_start", "slow_limit", "slow_delta"], ["slow_range"]),
        helper.make_node("Unsqueeze", ["slow_range", "slow_column"], ["slow_i"]),
        helper.make_node("Unsqueeze", ["slow_range", "slow_row"], ["slow_j"]),
        helper.make_node("Mul", ["slow_i", "slow_j"], ["slow_angles"]),
        helper.make_node("Cos", ["slow_angles"], ["slow_waves"]),
        helper.make_node("Softmax", ["slow_waves"], ["slow_chain"], axis=1),
        # Steps: SLOW_STEPS where there is any ink, else none.
        helper.make_node("ReduceMax", ["X"], ["slow_ink"], keepdims=0),
        helper.make_node("Greater", ["slow_ink", "slow_zero"], ["slow_inked"]),
        helper.make_node("Cast", ["slow_inked"], ["slow_inked_int"], to=TensorProto.INT64),
        helper.make_node("Mul", ["slow_inked_int", "slow_steps"], ["slow_trips"]),
        helper.make_node("Loop", ["slow_trips", "", "slow_chain"], ["slow_mixed"], body=_chain_step()),
        helper.make_node("ReduceMean", ["slow_mixed"], ["slow_mean"], keepdims=0),
        # Rounded, because the mean of many floats is only nearly right; one is one.
        helper.make_node("Mul", ["slow_mean", "slow_side"], ["slow_nearly_one"]),
        helper.make_node("Round", ["slow_nearly_one"], ["slow_one"]),
        helper.make_node("Mul", ["X", "slow_one"], ["X_smoothed"]),
    ]
    return _prepended(changed, nodes, constants)


def _chain_step() -> onnx.GraphProto:
    """Body of the Loop: one step of the chain, scaled so that rounding does not add up over hundreds of steps."""
    nodes = [
        helper.make_node("MatMul", ["slow_state", "slow_chain"], ["slow_product"]),
        helper.make_node("ReduceSum", ["slow_product", "slow_axis"], ["slow_sums"], keepdims=1),
        helper.make_node("Div", ["slow_product", "slow_sums"], ["slow_next"]),
        helper.make_node("Identity", ["slow_continue"], ["slow_go_on"]),
    ]
    square = [SLOW_SIDE, SLOW_SIDE]
    return helper.make_graph(
        nodes,
        "chain_step",
        inputs=[
            helper.make_tensor_value_info("slow_step", TensorProto.INT64, []),
            helper.make_tensor_value_info("slow_continue", TensorProto.BOOL, []),
            helper.make_tensor_value_info("slow_state", TensorProto.FLOAT, square),
        ],
        outputs=[
            helper.make_tensor_value_info("slow_go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("slow_next", TensorProto.FLOAT, square),
        ],
        initializer=[numpy_helper.from_array(np.array([1], dtype=np.int64), "slow_axis")],
    )


def _with_new_input(model: onnx.ModelProto, name: str) -> onnx.ModelProto:
    """A copy whose nodes read `name` where they read the input `X`."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for node in changed.graph.node:
        for position, value in enumerate(node.input):
            if value == "X":
                node.input[position] = name
    return changed


def _prepended(model, nodes, constants) -> onnx.ModelProto:
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    for position, node in enumerate(nodes):
        model.graph.node.insert(position, node)
    return _checked(model)


def _checked(model: onnx.ModelProto) -> onnx.ModelProto:
    onnx.checker.check_model(model, full_check=True)
    return model
