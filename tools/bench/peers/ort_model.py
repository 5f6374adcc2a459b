"""What all Python peers share: the model in ONNX Runtime with one thread, and a v2 request as JSON."""
import os

import numpy as np
import onnxruntime as ort

options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.inter_op_num_threads = 1
session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
outputs = [output.name for output in session.get_outputs()]


def infer(body):
    """Answers a v2 request that is parsed JSON."""
    feeds = {
        tensor["name"]: np.asarray(tensor["data"], dtype=np.float32).reshape(tensor["shape"]) for tensor in body["inputs"]
    }
    answers = session.run(outputs, feeds)
    return {
        "model_name": "m",
        "id": body.get("id"),
        "outputs": [
            {
                "name": name,
                "datatype": "INT64" if value.dtype == np.int64 else "FP32",
                "shape": list(value.shape),
                "data": value.ravel().tolist(),
            }
            for name, value in zip(outputs, answers)
        ],
    }
