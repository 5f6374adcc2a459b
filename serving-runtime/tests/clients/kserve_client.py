"""The kserve package's own clients for REST and gRPC, unmodified."""

import asyncio

from common import HTTP, SIMPLE, A, B, run, same
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig


def request(binary):
    made = [InferInput("INPUT0", list(A.shape), "INT32"), InferInput("INPUT1", list(B.shape), "INT32")]
    made[0].set_data_from_numpy(A, binary_data=binary)
    made[1].set_data_from_numpy(B, binary_data=binary)
    return InferRequest(model_name=SIMPLE, infer_inputs=made, request_id="1")


def output(response, name):
    return next(o for o in response.outputs if o.name == name).as_numpy()


def rest():
    async def work():
        client = InferenceRESTClient(RESTConfig(protocol="v2"))
        base = f"http://{HTTP}"
        assert await client.is_server_live(base) and await client.is_server_ready(base)
        assert await client.is_model_ready(base, SIMPLE)
        for binary in (False, True):
            response = await client.infer(base, request(binary), model_name=SIMPLE)
            same(output(response, "OUTPUT0"), A + B)

    asyncio.run(work())


def grpc():
    async def work():
        client = InferenceGRPCClient(HTTP)
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready(SIMPLE)
        for binary in (False, True):
            response = await client.infer(request(binary))
            same(output(response, "OUTPUT1"), A - B)
        await client.close()

    asyncio.run(work())


run([rest, grpc])
