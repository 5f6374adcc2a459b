"""tritonclient.grpc and tritonclient.grpc.aio, unmodified, on the port of REST."""

import asyncio
import queue

import numpy as np
import tritonclient.grpc as client
import tritonclient.grpc.aio as aio
from common import AFFINE, EVERY, HTTP, SIMPLE, TYPES, A, B, run, same
from tritonclient.utils import InferenceServerException

c = client.InferenceServerClient(HTTP)


def inputs(module=client):
    made = [module.InferInput("INPUT0", A.shape, "INT32"), module.InferInput("INPUT1", B.shape, "INT32")]
    made[0].set_data_from_numpy(A)
    made[1].set_data_from_numpy(B)
    return made


def health_and_metadata():
    assert c.is_server_live() and c.is_server_ready() and c.is_model_ready(SIMPLE)
    assert "statistics" in c.get_server_metadata().extensions
    metadata = c.get_model_metadata(SIMPLE)
    assert [list(i.shape) for i in metadata.inputs] == [[-1, 4], [-1, 4]], metadata


def infer():
    result = c.infer(SIMPLE, inputs(), request_id="1", priority=1, timeout=5_000_000)
    same(result.as_numpy("OUTPUT0"), A + B)
    same(result.as_numpy("OUTPUT1"), A - B)
    response = result.get_response()
    # The gateway adds the id to the metadata; the body has an id only where no gateway could write it.
    assert response.id == "1" and "prediction_id" not in response.parameters, response.parameters
    only = c.infer(SIMPLE, inputs(), outputs=[client.InferRequestedOutput("OUTPUT1")])
    assert only.as_numpy("OUTPUT0") is None


def compression():
    for packed in ("gzip", "deflate"):
        same(c.infer(SIMPLE, inputs(), compression_algorithm=packed).as_numpy("OUTPUT0"), A + B)


def every_datatype():
    made, wanted = [], []
    for name, datatype, array in EVERY:
        made.append(client.InferInput(name, array.shape, datatype))
        made[-1].set_data_from_numpy(array)
        wanted.append(client.InferRequestedOutput(f"{name}_out"))
    result = c.infer(TYPES, made, outputs=wanted)
    for name, _, array in EVERY:
        same(result.as_numpy(f"{name}_out"), array)


def callbacks():
    done = queue.Queue()
    for _ in range(8):
        c.async_infer(SIMPLE, inputs(), lambda result, error: done.put((result, error)))
    for _ in range(8):
        result, error = done.get(timeout=30)
        assert error is None, error
        same(result.as_numpy("OUTPUT0"), A + B)


def stream():
    done = queue.Queue()
    c.start_stream(lambda result, error: done.put((result, error)))
    for n in range(4):
        c.async_stream_infer(SIMPLE, inputs(), request_id=str(n))
    ids = []
    for _ in range(4):
        result, error = done.get(timeout=30)
        assert error is None, error
        ids.append(result.get_response().id)
    c.stop_stream()
    assert ids == ["0", "1", "2", "3"], ids


def errors_are_exceptions_with_a_status():
    for model, part in ((SIMPLE, "INVALID_ARGUMENT"), ("nothing", "NOT_FOUND")):
        wrong = client.InferInput("INPUT9", A.shape, "INT32")
        wrong.set_data_from_numpy(A)
        try:
            c.infer(model, [wrong])
        except InferenceServerException as e:
            assert part in e.status(), e
        else:
            raise AssertionError("no exception")


def statistics_and_repository():
    assert c.get_inference_statistics(SIMPLE).model_stats[0].inference_stats.success.count > 0
    c.load_model(AFFINE)
    states = {entry.name: entry.state for entry in c.get_model_repository_index().models}
    assert states[AFFINE] == "READY", states
    c.unload_model(AFFINE)
    c.load_model(AFFINE)


def aio_client():
    async def work():
        async with aio.InferenceServerClient(HTTP) as a:
            assert await a.is_server_ready()
            results = await asyncio.gather(*[a.infer(SIMPLE, inputs(aio)) for _ in range(8)])
            for result in results:
                same(result.as_numpy("OUTPUT1"), A - B)

    asyncio.run(work())


run([health_and_metadata, infer, compression, every_datatype, callbacks, stream, errors_are_exceptions_with_a_status,
     statistics_and_repository, aio_client])
