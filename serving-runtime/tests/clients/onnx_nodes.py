"""The node cases of the package `onnx`, which are one operator each: whatever ONNX Runtime answers to one of them, the server answers too, by JSON and by binary
data. Cases with a dimension of 0 always, of the others an eighth that the hash of the commit chooses; all of them with ONNX_NODES=all."""

import json
import os
import pathlib
import sys
import urllib.error
import urllib.request
import warnings
import zlib

import numpy as np
import onnx
import onnxruntime as ort
from common import HTTP, run
from onnx.backend.test.case.node import collect_testcases

# The cases divide by zero on purpose.
warnings.simplefilter("ignore")

REPOSITORY = pathlib.Path(os.environ["SLIPWAY_REPOSITORY"])
COMMIT = os.environ.get("SLIPWAY_COMMIT", "")
PARTS = 1 if os.environ.get("ONNX_NODES") == "all" else 8

DATATYPES = {
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "int8": "INT8", "int16": "INT16",
    "int32": "INT32", "int64": "INT64", "float16": "FP16", "float32": "FP32", "float64": "FP64", "object": "BYTES",
}  # fmt: skip
TYPES = {datatype: name for name, datatype in DATATYPES.items()}


def strings(array):
    """Strings of any kind as bytes."""
    if array.dtype.kind in "USO":
        flat = [item if isinstance(item, bytes) else str(item).encode() for item in array.reshape(-1)]
        array = np.array(flat, dtype=np.object_).reshape(array.shape)
    return array


def servable(value):
    """Whether it is a tensor of a type that the protocol knows."""
    if isinstance(value, onnx.TensorProto) or not isinstance(value, (np.ndarray, np.generic)):
        return False
    kind = np.asarray(value).dtype
    return kind.kind in "USO" or str(kind) in DATATYPES


def expected(case):
    """Inputs and answers of ONNX Runtime by name, or None where it does not run the case or the protocol cannot carry it."""
    graph = case.model.graph
    inputs, _ = case.data_sets[0]
    weights = {weight.name for weight in graph.initializer}
    names = [value.name for value in graph.input if value.name not in weights]
    if len(names) != len(inputs) or not all(servable(value) for value in inputs):
        return None
    if any(value.type.WhichOneof("value") != "tensor_type" for value in [*graph.input, *graph.output]):
        return None
    options = ort.SessionOptions()
    options.log_severity_level = 4
    given = {name: np.asarray(value) for name, value in zip(names, inputs)}
    try:
        session = ort.InferenceSession(case.model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        answers = session.run(None, given)
    except Exception:  # noqa: BLE001: an unsupported operator, for example
        return None
    if not all(servable(value) for value in answers):
        return None
    outputs = {value.name: strings(np.asarray(answer)) for value, answer in zip(session.get_outputs(), answers)}
    return {name: strings(value) for name, value in given.items()}, outputs


def has_zero(case):
    inputs, outputs = case.data_sets[0]
    return any(0 in np.shape(value) for value in [*inputs, *outputs] if isinstance(value, (np.ndarray, np.generic)))


def chosen(case):
    return PARTS == 1 or has_zero(case) or zlib.crc32(f"{COMMIT} {case.name}".encode()) % PARTS == 0


def post(path, body, headers=()):
    request = urllib.request.Request(f"http://{HTTP}{path}", data=body, headers=dict(headers), method="POST")
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        raise AssertionError(f"{path}: {error.code} {error.read()[:500]!r}") from None


def as_json(array):
    if array.dtype == np.object_:
        return [item.decode() for item in array.reshape(-1)]
    if array.dtype.kind == "f":
        # Python writes a bare NaN, and so do its users' programs.
        return [float(item) for item in array.reshape(-1)]
    return array.reshape(-1).tolist()


def raw(array):
    if array.dtype == np.object_:
        return b"".join(len(item).to_bytes(4, "little") + item for item in array.reshape(-1))
    return np.ascontiguousarray(array).tobytes()


def from_raw(data, datatype, shape):
    if datatype != "BYTES":
        return np.frombuffer(data, dtype=TYPES[datatype]).reshape(shape)
    items, at = [], 0
    while at < len(data):
        length = int.from_bytes(data[at : at + 4], "little")
        items.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return np.array(items, dtype=np.object_).reshape(shape)


def from_json(values, datatype, shape):
    if datatype == "BYTES":
        values = [value.encode() for value in values]
    elif datatype.startswith("FP"):
        # A NaN or an infinity is returned as null, or by name.
        values = [np.nan if value is None else float(value) for value in values]
    return np.array(values, dtype=TYPES[datatype]).reshape(shape)


def describe(name, array):
    return {"name": name, "datatype": DATATYPES[str(array.dtype)], "shape": list(array.shape)}


def ask_json(model, inputs, outputs):
    body = {"inputs": [describe(name, array) | {"data": as_json(array)} for name, array in inputs.items()]}
    body["outputs"] = [{"name": name} for name in outputs]
    _, answer = post(f"/v2/models/{model}/infer", json.dumps(body).encode())
    told = {output["name"]: output for output in json.loads(answer)["outputs"]}
    return {name: from_json(o["data"], o["datatype"], o["shape"]) for name, o in told.items()}


def ask_binary(model, inputs, outputs):
    datas = {name: raw(array) for name, array in inputs.items()}
    described = [
        describe(name, array) | {"parameters": {"binary_data_size": len(datas[name])}} for name, array in inputs.items()
    ]
    head = {"inputs": described, "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs]}
    head = json.dumps(head).encode()
    length = {"Inference-Header-Content-Length": str(len(head))}
    headers, answer = post(f"/v2/models/{model}/infer", head + b"".join(datas.values()), length)
    at = int(headers.get("Inference-Header-Content-Length", len(answer)))
    answered = {}
    for output in json.loads(answer[:at])["outputs"]:
        size = output["parameters"]["binary_data_size"]
        answered[output["name"]] = from_raw(answer[at : at + size], output["datatype"], output["shape"])
        at += size
    return answered


def has_form_in_json(arrays):
    """docs/protocol.md: half precision has no form in JSON, and an infinity has none in a request."""
    floats = [array for array in arrays if array.dtype.kind == "f"]
    return not any(array.dtype == np.float16 or np.isinf(array).any() for array in floats)


def as_told_in_json(array):
    """docs/protocol.md: `null` stands for what is not finite in an answer."""
    return np.where(np.isfinite(array), array, np.nan).astype(array.dtype) if array.dtype.kind == "f" else array


def compare(name, wanted, got):
    assert list(wanted.shape) == list(got.shape), (name, wanted.shape, got.shape)
    assert wanted.dtype == got.dtype, (name, wanted.dtype, got.dtype)
    if wanted.dtype.kind == "f":
        # The server optimises graphs as ONNX Runtime does by default; batches may be padded.
        tolerance = {"float16": 1e-2, "float32": 1e-5, "float64": 1e-9}[str(wanted.dtype)]
        np.testing.assert_allclose(got, wanted, rtol=tolerance, atol=tolerance, err_msg=name)
    else:
        assert (wanted == got).all(), (name, wanted, got)


# What the answer depends on besides the inputs.
RANDOM = ("bernoulli", "dropout", "training_dropout", "random", "multinomial")


def the_server_answers_as_onnx_runtime_does():
    cases = [case for case in collect_testcases(None) if chosen(case)]
    ran, zero, in_json, left, failed = 0, 0, 0, 0, []
    for case in cases:
        found = None if any(word in case.name for word in RANDOM) else expected(case)
        if found is None:
            left += 1
            continue
        inputs, outputs = found
        folder = REPOSITORY / case.name / "1"
        folder.mkdir(parents=True)
        onnx.save(case.model, folder / "model.onnx")
        try:
            post(f"/v2/repository/models/{case.name}/load", b"{}")
            got = ask_binary(case.name, inputs, outputs)
            for name, wanted in outputs.items():
                compare(f"{case.name} binary {name}", wanted, got[name])
            if has_form_in_json(inputs.values()) and all(array.dtype != np.float16 for array in outputs.values()):
                got = ask_json(case.name, inputs, outputs)
                for name, wanted in outputs.items():
                    compare(f"{case.name} JSON {name}", as_told_in_json(wanted), got[name])
                in_json += 1
            post(f"/v2/repository/models/{case.name}/unload", b"{}")
        except Exception as error:  # noqa: BLE001: all errors are reported
            failed.append(f"{case.name}: {str(error)[:400]}")
        ran, zero = ran + 1, zero + has_zero(case)
    print(f"{ran} cases by binary data, {in_json} of them by JSON, {zero} with a dimension of 0; {left} that ONNX Runtime does not run, that are random, or that are no tensors")
    for line in failed:
        print(f"  {line}")
    assert not failed, f"{len(failed)} of {ran} differ"
    assert zero >= 40 and in_json >= 100, (ran, in_json, zero)


run([the_server_answers_as_onnx_runtime_does])
