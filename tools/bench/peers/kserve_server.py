"""A model of KServe's Python server, without gRPC and without an access log."""
import sys

import numpy as np
from kserve import InferOutput, InferResponse, Model, ModelServer

from ort_model import outputs, session


class OnnxModel(Model):
    def __init__(self):
        super().__init__("m")
        self.ready = True

    async def predict(self, payload, headers=None, response_headers=None):
        feeds = {tensor.name: tensor.as_numpy().astype(np.float32, copy=False) for tensor in payload.inputs}
        answers = session.run(outputs, feeds)
        found = []
        for name, value in zip(outputs, answers):
            kind = "INT64" if value.dtype == np.int64 else "FP32"
            output = InferOutput(name=name, shape=list(value.shape), datatype=kind)
            output.set_data_from_numpy(value, binary_data=False)
            found.append(output)
        return InferResponse(response_id=payload.id or "0", model_name="m", infer_outputs=found)


if __name__ == "__main__":
    port = int(sys.argv[1])
    ModelServer(http_port=port, enable_grpc=False, workers=1, access_log_format=None).start([OnnxModel()])
