"""BentoML with one worker and without an access log."""
import bentoml

from ort_model import infer as run


@bentoml.service(workers=1, logging={"access": {"enabled": False}}, traffic={"timeout": 30})
class Onnx:
    @bentoml.api(route="/infer")
    async def infer(self, inputs: list, id: str = "") -> dict:
        return run({"inputs": inputs, "id": id})
