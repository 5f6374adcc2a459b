"""What the scripts share: the server's addresses, and how a check reports."""

import os
import sys
import traceback

import numpy as np

HTTP = os.environ["SLIPWAY_HTTP"]
SIMPLE, TYPES, AFFINE = "simple", "types", "affine"

A = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], dtype=np.int32)
B = np.ones((2, 4), dtype=np.int32)

# One value of each datatype for the model `types`: name, datatype of the protocol, array.
EVERY = [
    ("bool", "BOOL", np.array([True, False])),
    ("u8", "UINT8", np.array([0, 255], dtype=np.uint8)),
    ("u16", "UINT16", np.array([1, 65535], dtype=np.uint16)),
    ("u32", "UINT32", np.array([1, 2**32 - 1], dtype=np.uint32)),
    ("u64", "UINT64", np.array([1, 2**64 - 1], dtype=np.uint64)),
    ("i8", "INT8", np.array([-128, 127], dtype=np.int8)),
    ("i16", "INT16", np.array([-2, 2], dtype=np.int16)),
    ("i32", "INT32", np.array([-2, 2], dtype=np.int32)),
    ("i64", "INT64", np.array([-(2**63), 2**63 - 1], dtype=np.int64)),
    ("f16", "FP16", np.array([0.5, -2.0], dtype=np.float16)),
    ("f32", "FP32", np.array([0.1, np.inf], dtype=np.float32)),
    ("f64", "FP64", np.array([0.1, -1.5], dtype=np.float64)),
    ("text", "BYTES", np.array(["é".encode(), b""], dtype=np.object_)),
]


def same(a, b):
    """Equal in type and value."""
    assert a.dtype == b.dtype or a.dtype == np.object_, (a.dtype, b.dtype)
    assert a.shape == b.shape and (a == b).all(), (a, b)


def run(checks):
    """Runs functions one after the other; ends with 1 when one fails."""
    failed = 0
    for check in checks:
        try:
            check()
            print(f"ok   {check.__name__}")
        except Exception:  # noqa: BLE001: a check may fail in any way
            failed += 1
            print(f"FAIL {check.__name__}")
            traceback.print_exc(file=sys.stdout)
    sys.exit(1 if failed else 0)
