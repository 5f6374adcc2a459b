"""Checks the models beside this file; exits 1 with a list of what is wrong.

    python check.py

- every file has the digest and the accuracy that models.json states;
- every manifest of the examples names a digest that is stated there;
- onnxruntime gives the answers of scikit-learn, to 1e-5, wherever a version claims to be right;
- each broken version is broken in the way that it claims, and none of them notices during a warm-up with zeros.
"""

import csv
import json
import pathlib
import re
import sys
import time

import numpy as np
import onnxruntime

import train

HERE = pathlib.Path(__file__).parent
TOLERANCE = 1e-5
INTERFACE = [
    ("X", "tensor(float)", [None, 64]),
    ("label", "tensor(int64)", [None]),
    ("probabilities", "tensor(float)", [None, 10]),
]


def load(version):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    data = (HERE / version / "model.onnx").read_bytes()
    return data, onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def interface(session):
    return [(value.name, value.type, value.shape) for value in session.get_inputs() + session.get_outputs()]


def parity(session, estimator, rows):
    """Largest difference in probability, share of equal labels and of rows answered, row by row."""
    worst, equal, answered = 0.0, 0, 0
    for start in range(len(rows)):
        batch = rows[start : start + 1]
        try:
            label, probabilities = session.run(["label", "probabilities"], {"X": batch})
        except Exception:  # noqa: BLE001 - onnxruntime raises a class of its own for each status
            continue
        answered += 1
        worst = max(worst, float(np.abs(probabilities - estimator.predict_proba(batch)).max()))
        equal += int(label[0] == estimator.predict(batch)[0])
    return worst, equal / answered, answered / len(rows)


def check_heldout(rows, labels):
    with (HERE / "heldout.csv").open() as file:
        written = np.array(list(csv.reader(file))[1:], dtype=np.float32)
    if not (np.array_equal(written[:, 0], labels) and np.array_equal(written[:, 1:], rows)):
        yield "heldout.csv is not the held-out half"


def check_version(version, stated, estimator, rows, labels):
    data, session = load(version)
    if interface(session) != INTERFACE:
        yield f"{version}: unexpected interface {interface(session)}"
    slow = version == "v4"
    account = train.account_of(data, rows, labels, slow)
    for key, value in account.items():
        if stated[key] != value:
            yield f"{version}: models.json says {key} {stated[key]}, found {value}"
    session.run(None, {"X": np.zeros((8, 64), dtype=np.float32)})
    if estimator is not None:
        some = rows[:2] if slow else rows
        worst, equal, answered = parity(session, estimator, some)
        print(f"{version}: {len(some)} rows, difference {worst:.2e}, equal labels {equal:.4f}, answered {answered:.4f}")
        if worst > TOLERANCE or equal < 1:
            yield f"{version}: differs from scikit-learn by {worst:.2e}, equal labels {equal:.4f}"
    if slow:
        began = time.process_time()
        session.run(None, {"X": rows[:1]})
        print(f"{version}: one inference takes {time.process_time() - began:.2f} s of CPU")


def check_manifests(stated):
    """Every digest that stands below the URI of a version is the digest of that version."""
    for path in sorted(HERE.parent.rglob("*.yaml")):
        for version, digest in re.findall(r"uri: \S*/digits/(\S+)/model.onnx\n +digest: (\S+)", path.read_text()):
            if stated[version]["digest"] != digest:
                yield f"{path.name}: stale digest of {version}"


def check_behaviour(stated):
    """The story of the example, as numbers."""
    claims = {
        "v1 is worse than v2": stated["v1"]["accuracy"] + 0.1 < stated["v2"]["accuracy"],
        "v2 is good": stated["v2"]["accuracy"] > 0.95,
        "v3 is wrong": stated["v3"]["accuracy"] < 0.15,
        "v4 is right": stated["v4"]["accuracy"] > 0.95,
        "v4-errors fails on many rows": 0.4 < stated["v4-errors"]["answered"] < 0.7,
        "files are small": all(entry["bytes"] < 1_000_000 for entry in stated.values()),
    }
    return [f"not true any more: {claim}" for claim, holds in claims.items() if not holds]


def main():
    onnxruntime.set_default_logger_severity(4)  # v4-errors fails on purpose, hundreds of times
    (train_rows, train_labels), (rows, labels) = train.split()
    trained = {name: model.fit(train_rows, train_labels) for name, model in train.estimators().items()}
    stated = json.loads((HERE / "models.json").read_text())
    wrong = list(check_heldout(rows, labels)) + check_behaviour(stated) + list(check_manifests(stated))
    for version, (_, name, _) in train.versions(trained).items():
        wrong += check_version(version, stated[version], trained.get(name), rows, labels)
    print("\n".join(wrong) or "all as stated")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
