#!/bin/sh
# Fetches ONNX Runtime's shared library out of its Python package, once, and prints where it is.
# Usage: fetch-onnxruntime.sh [target folder of the build]
set -eu

version=1.32.0
case "$(uname -m)" in
  x86_64)
    platform=manylinux_2_28_x86_64
    wheel_sha256=5a34fc4dfeb5a7b4a74c95dcba1e773d722abda720b474edf1b0c419dc6d163d ;;
  *)
    echo "no pinned ONNX Runtime for $(uname -m); add its wheel and digest to $0" >&2
    exit 1 ;;
esac

target=${1:-${CARGO_TARGET_DIR:-$(dirname "$0")/../target}}
out=$target/onnxruntime-$version
library=$out/libonnxruntime.so
if [ -f "$library" ] && [ -f "$out/ThirdPartyNotices.txt" ]; then
  (cd "$out" && pwd -P | sed 's,$,/libonnxruntime.so,')
  exit 0
fi

cache=$target/e2e/cache/onnxruntime
mkdir -p "$cache" "$out"
wheel=$cache/onnxruntime-$version-cp311-cp311-$platform.whl
if [ ! -f "$wheel" ]; then
  python3 -m pip download --quiet --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 \
    --platform "$platform" --dest "$cache" "onnxruntime==$version" >&2
fi
echo "$wheel_sha256  $wheel" | sha256sum --check --quiet >&2 || {
  echo "$wheel is not what was pinned; remove it and look into why" >&2
  exit 1
}

# Each file appears whole or not at all: several builds may run this at once.
python3 - "$wheel" "$out" "$version" <<'PY'
import os, sys, zipfile
wheel, out, version = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    for member, name in (("onnxruntime/ThirdPartyNotices.txt", "ThirdPartyNotices.txt"),
                         (f"onnxruntime/capi/libonnxruntime.so.{version}", "libonnxruntime.so")):
        partial = os.path.join(out, f".{name}.{os.getpid()}")
        with open(partial, "wb") as f:
            f.write(z.read(member))
        os.chmod(partial, 0o755 if name.endswith(".so") else 0o644)
        os.rename(partial, os.path.join(out, name))
PY
(cd "$out" && pwd -P | sed 's,$,/libonnxruntime.so,')
