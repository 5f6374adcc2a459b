"""Trains one small model with each library, converts it to ONNX, and keeps what the library itself says for some held-out rows.

    pip install -r requirements.txt
    python train.py            # rewrites <name>/model.onnx and <name>/reference.json

The parity test (serving-runtime/tests/it/frameworks.rs) sends the rows to the model server and compares with `reference.json`.
"""
import json
import pathlib
import sys

import numpy as np
import onnx
from lightgbm import LGBMClassifier, LGBMRegressor
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer, load_diabetes
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

HERE = pathlib.Path(__file__).parent
OPSET = 15
ROWS = 40


def keep(name, graph, input_name, output, rows, expected):
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    onnx.checker.check_model(graph)
    onnx.save(graph, folder / "model.onnx")
    reference = {
        "input": input_name,
        "output": output,
        "rows": rows.astype(float).round(6).tolist(),
        "expected": np.asarray(expected, dtype=float).reshape(len(rows), -1).round(8).tolist(),
    }
    (folder / "reference.json").write_text(json.dumps(reference) + "\n")
    print(f"{name}: {(folder / 'model.onnx').stat().st_size} bytes", file=sys.stderr)


def split(load):
    x, y = load(return_X_y=True)
    # Both sides must see the same numbers: what is kept as text has six digits.
    x = x.round(6).astype(np.float32)
    return train_test_split(x, y, test_size=0.3, random_state=7)


def fix_label_shape(graph):
    """LightGBM's converter declares the shape {1} for labels of any number of rows, and ONNX Runtime warns at every request."""
    for output in graph.graph.output:
        if output.name == "label":
            dim = output.type.tensor_type.shape.dim[0]
            dim.ClearField("dim_value")
            dim.dim_param = "N"
    return graph


x, held, y, _ = split(load_breast_cancer)
held = held[:ROWS]
floats = [("input", FloatTensorType([None, x.shape[1]]))]

pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
graph = to_onnx(pipeline, x[:1], target_opset=OPSET, options={id(pipeline): {"zipmap": False}})
keep("sklearn", graph, graph.graph.input[0].name, "probabilities", held, pipeline.predict_proba(held))

boosted = XGBClassifier(n_estimators=30, max_depth=3, random_state=7).fit(x, y)
graph = convert_xgboost(boosted, initial_types=floats, target_opset=OPSET)
keep("xgboost", graph, "input", "probabilities", held, boosted.predict_proba(held))

leaves = LGBMClassifier(n_estimators=30, num_leaves=8, random_state=7, verbose=-1).fit(x, y)
graph = fix_label_shape(convert_lightgbm(leaves, initial_types=floats, target_opset=OPSET, zipmap=False))
keep("lightgbm", graph, "input", "probabilities", held, leaves.predict_proba(held))

# Real values; scaled, because float32 sums of large leaves differ by more than 1e-5 from the library's double ones.
x, held, y, _ = split(load_diabetes)
held = held[:ROWS]
y = y / 100.0
regressor = LGBMRegressor(n_estimators=30, num_leaves=8, random_state=7, verbose=-1).fit(x, y)
floats = [("input", FloatTensorType([None, x.shape[1]]))]
graph = convert_lightgbm(regressor, initial_types=floats, target_opset=OPSET)
keep("lightgbm-regressor", graph, "input", graph.graph.output[0].name, held, regressor.predict(held))
