"""A model of Triton's Python backend. (The wheel of Triton carries no other backend.)"""
import os

import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self.session = ort.InferenceSession(os.environ["BENCH_MODEL"], options, providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name

    def execute(self, requests):
        rows = [pb.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
        (answers,) = self.session.run(["probabilities"], {self.input: np.concatenate(rows)})
        out, at = [], 0
        for row in rows:
            part = answers[at : at + len(row)]
            at += len(row)
            out.append(pb.InferenceResponse(output_tensors=[pb.Tensor("probabilities", part)]))
        return out
