"""Trains the models of the digits example, and writes them, the held-out rows and models.json beside this file.

    python train.py [--out DIR]

The data are the 1,797 handwritten digits (8 x 8 pixels) inside the scikit-learn package: nothing is downloaded. Seeds are
fixed and the versions are pinned in requirements.txt: the same versions give the same accuracies.
"""

import argparse
import csv
import hashlib
import json
import pathlib

import numpy as np
import onnxruntime
from onnx import ModelProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import graphs

SEED = 1
PERMUTATION_SEED = 1
# Old enough for every current ONNX Runtime, in every language.
OPSETS = {"": 17, "ai.onnx.ml": 3}
IR_VERSION = 8


def split():
    """Train and held-out halves; float32 because the models take FP32 (ink is a whole number, so nothing is rounded)."""
    rows, labels = load_digits(return_X_y=True)
    halves = train_test_split(rows.astype(np.float32), labels, test_size=0.5, random_state=SEED, stratify=labels)
    train_rows, held_rows, train_labels, held_labels = halves
    return (train_rows, train_labels), (held_rows, held_labels)


def estimators():
    """The scikit-learn models, untrained, by the name of the exported graph that they become."""
    return {
        "tree": DecisionTreeClassifier(max_depth=8, random_state=SEED),
        "forest": RandomForestClassifier(n_estimators=40, random_state=SEED),
        "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, random_state=SEED)),
    }


def export(estimator) -> ModelProto:
    """ONNX with input `X` FP32 [n, 64], outputs `label` INT64 [n] and `probabilities` FP32 [n, 10]."""
    model = convert_sklearn(
        estimator,
        initial_types=[("X", FloatTensorType([None, 64]))],
        final_types=[("label", None), ("probabilities", None)],
        options={id(estimator): {"zipmap": False}},
        target_opset=OPSETS,
    )
    model.ir_version = IR_VERSION
    # The exporter puts a random id and its own version here; without them the bytes follow from the weights alone.
    model.graph.name = "digits"
    model.doc_string = ""
    del model.metadata_props[:]
    # The exporter iterates over a set here.
    opsets = sorted(((opset.domain, opset.version) for opset in model.opset_import))
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(domain, version) for domain, version in opsets)
    return model


def versions(trained):
    """What is shipped: {version: (model, scikit-learn model whose answers it must give or None, what it shows)}."""
    tree, forest, linear = (export(trained[name]) for name in ("tree", "forest", "linear"))
    order = np.random.default_rng(PERMUTATION_SEED).permutation(64)
    short_table = graphs.with_ink_table(linear, graphs.INK_LEVELS - 1)
    return {
        "v1": (tree, "tree", "a shallow decision tree: works, not very good"),
        "v2": (forest, "forest", "a random forest: better in every respect"),
        "v3": (graphs.with_permuted_columns(forest, order), None, "v2 with its columns permuted: fast, 200 OK and wrong"),
        "v4": (graphs.with_slow_smoothing(linear), "linear", "right, but takes seconds of CPU on every real row"),
        "v4-errors": (short_table, "linear", "right where it answers; ONNX Runtime fails on many real rows"),
    }


def account_of(model_bytes: bytes, rows, labels, slow: bool) -> dict:
    """Digest, size and held-out behaviour of one model, row by row as a client would send them."""
    session = onnxruntime.InferenceSession(model_bytes, providers=["CPUExecutionProvider"])
    answered = correct = 0
    # One batch where every run takes seconds; row by row elsewhere, because an error takes its whole batch down.
    batches = [(rows, labels)] if slow else [(rows[i : i + 1], labels[i : i + 1]) for i in range(len(rows))]
    for batch, expected in batches:
        try:
            predicted = session.run(["label"], {"X": batch})[0]
        except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument:
            continue
        answered += len(batch)
        correct += int((predicted == expected).sum())
    return {
        "digest": "sha256:" + hashlib.sha256(model_bytes).hexdigest(),
        "bytes": len(model_bytes),
        "accuracy": round(correct / max(answered, 1), 4),
        "answered": round(answered / len(rows), 4),
    }


def write_heldout(path: pathlib.Path, rows, labels):
    """CSV: label, then 64 pixels as whole numbers."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["label"] + [f"p{i}" for i in range(64)])
        for row, label in zip(rows.astype(int), labels):
            writer.writerow([int(label), *row.tolist()])


def main():
    here = pathlib.Path(__file__).parent
    onnxruntime.set_default_logger_severity(4)  # v4-errors fails on purpose, hundreds of times
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=pathlib.Path, default=here)
    out = parser.parse_args().out
    (train_rows, train_labels), (held_rows, held_labels) = split()
    trained = {name: model.fit(train_rows, train_labels) for name, model in estimators().items()}
    account = {}
    for version, (model, _, shows) in versions(trained).items():
        data = model.SerializeToString(deterministic=True)
        (out / version).mkdir(parents=True, exist_ok=True)
        (out / version / "model.onnx").write_bytes(data)
        account[version] = account_of(data, held_rows, held_labels, slow=version == "v4") | {"shows": shows}
        print(version, account[version])
    write_heldout(out / "heldout.csv", held_rows, held_labels)
    (out / "models.json").write_text(json.dumps(account, indent=2) + "\n")


if __name__ == "__main__":
    main()
