"""tritonclient.http and tritonclient.http.aio, unmodified."""

import asyncio

import numpy as np
import tritonclient.http as client
import tritonclient.http.aio as aio
from common import AFFINE, EVERY, HTTP, SIMPLE, TYPES, A, B, run, same
from tritonclient.utils import InferenceServerException

c = client.InferenceServerClient(HTTP, concurrency=4)


def inputs(binary=True, module=client):
    made = [module.InferInput("INPUT0", A.shape, "INT32"), module.InferInput("INPUT1", B.shape, "INT32")]
    made[0].set_data_from_numpy(A, binary_data=binary)
    made[1].set_data_from_numpy(B, binary_data=binary)
    return made


def health_and_metadata():
    assert c.is_server_live() and c.is_server_ready() and c.is_model_ready(SIMPLE)
    assert not c.is_model_ready("nothing")
    assert "binary_tensor_data" in c.get_server_metadata()["extensions"]
    metadata = c.get_model_metadata(SIMPLE)
    assert [i["name"] for i in metadata["inputs"]] == ["INPUT0", "INPUT1"], metadata


def the_default_call_is_binary():
    result = c.infer(SIMPLE, inputs(), request_id="1")
    same(result.as_numpy("OUTPUT0"), A + B)
    same(result.as_numpy("OUTPUT1"), A - B)
    assert result.get_response()["id"] == "1"


def json_both_ways():
    wanted = [client.InferRequestedOutput("OUTPUT1", binary_data=False)]
    result = c.infer(SIMPLE, inputs(binary=False), outputs=wanted)
    same(result.as_numpy("OUTPUT1"), A - B)
    assert result.as_numpy("OUTPUT0") is None


def compression():
    big = np.ones((2000, 2), dtype=np.float32)
    x = client.InferInput("x", big.shape, "FP32")
    x.set_data_from_numpy(big)
    for packed in ("gzip", "deflate"):
        for answer in (None, "gzip", "deflate"):
            result = c.infer(AFFINE, [x], request_compression_algorithm=packed, response_compression_algorithm=answer)
            same(result.as_numpy("y"), big * 2 + 1)


def every_datatype():
    made, wanted = [], []
    for name, datatype, array in EVERY:
        made.append(client.InferInput(name, array.shape, datatype))
        made[-1].set_data_from_numpy(array)
        wanted.append(client.InferRequestedOutput(f"{name}_out", binary_data=True))
    result = c.infer(TYPES, made, outputs=wanted)
    for name, _, array in EVERY:
        same(result.as_numpy(f"{name}_out"), array)


def many_at_once():
    requests = [c.async_infer(SIMPLE, inputs()) for _ in range(16)]
    for request in requests:
        same(request.get_result().as_numpy("OUTPUT0"), A + B)


def errors_are_exceptions_with_the_servers_text():
    wrong = client.InferInput("INPUT9", A.shape, "INT32")
    wrong.set_data_from_numpy(A)
    try:
        c.infer(SIMPLE, [wrong])
    except InferenceServerException as e:
        assert "no input" in e.message() and e.status() == "400", (e.status(), e.message())
    else:
        raise AssertionError("no exception")


def statistics_and_repository():
    stats = c.get_inference_statistics(SIMPLE)["model_stats"][0]
    assert stats["inference_stats"]["success"]["count"] > 0
    assert c.get_inference_statistics()["model_stats"]
    c.load_model(AFFINE)
    states = {entry["name"]: entry["state"] for entry in c.get_model_repository_index()}
    assert states[SIMPLE] == states[AFFINE] == "READY", states
    c.unload_model(AFFINE)
    assert not c.is_model_ready(AFFINE)
    c.load_model(AFFINE)


def aio_client():
    async def work():
        async with aio.InferenceServerClient(HTTP) as a:
            assert await a.is_server_ready()
            results = await asyncio.gather(*[a.infer(SIMPLE, inputs(b, aio)) for b in (True, False) for _ in range(4)])
            for result in results:
                same(result.as_numpy("OUTPUT1"), A - B)
            packed = await a.infer(SIMPLE, inputs(module=aio), request_compression_algorithm="gzip", response_compression_algorithm="gzip")
            same(packed.as_numpy("OUTPUT0"), A + B)

    asyncio.run(work())


run([health_and_metadata, the_default_call_is_binary, json_both_ways, statistics_and_repository, compression, every_datatype,
     many_at_once, errors_are_exceptions_with_the_servers_text, aio_client])
