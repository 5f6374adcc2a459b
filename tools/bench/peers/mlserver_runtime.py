"""A runtime of MLServer that calls ONNX Runtime."""
import numpy as np
from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput

from ort_model import outputs, session


class OnnxModel(MLModel):
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        feeds = {
            tensor.name: np.asarray(tensor.data.root, dtype=np.float32).reshape(tensor.shape) for tensor in payload.inputs
        }
        answers = session.run(outputs, feeds)
        return InferenceResponse(
            id=payload.id,
            model_name=self.name,
            outputs=[
                ResponseOutput(
                    name=name,
                    datatype="INT64" if value.dtype == np.int64 else "FP32",
                    shape=list(value.shape),
                    data=value.ravel().tolist(),
                )
                for name, value in zip(outputs, answers)
            ],
        )
