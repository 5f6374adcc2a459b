#!/bin/sh
# Extracts ONNX Runtime's shared library from its Python package, once, and prints its path.
# Usage: fetch-onnxruntime.sh [folder]; the default is the cache (SLIPWAY_CACHE, else slipway in the user's cache directory).
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

cache=${1:-${SLIPWAY_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/slipway}}
out=$cache/onnxruntime-$version
library=$out/libonnxruntime.so
mkdir -p "$out"
out=$(cd "$out" && pwd -P)
if [ -f "$library" ] && [ -f "$out/ThirdPartyNotices.txt" ]; then
  echo "$out/libonnxruntime.so"
  exit 0
fi

# Downloaded into a separate folder and moved when complete, because several builds may run this script at once.
partial=$(mktemp -d "$out/.partial.XXXXXX")
trap 'rm -rf "$partial"' EXIT
python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 --implementation cp --abi cp311 \
  --platform "$platform" --dest "$partial" "onnxruntime==$version" >&2
wheel=$partial/onnxruntime-$version-cp311-cp311-$platform.whl
echo "$wheel_sha256  $wheel" | sha256sum --check --quiet >&2 || {
  echo "$wheel is not what was pinned; look into why" >&2
  exit 1
}
python3 - "$wheel" "$partial" "$version" <<'PY'
import os, sys, zipfile
wheel, out, version = sys.argv[1:]
with zipfile.ZipFile(wheel) as z:
    for member, name in ((f"onnxruntime/capi/libonnxruntime.so.{version}", "libonnxruntime.so"),
                         ("onnxruntime/ThirdPartyNotices.txt", "ThirdPartyNotices.txt")):
        with open(os.path.join(out, name), "wb") as f:
            f.write(z.read(member))
        os.chmod(os.path.join(out, name), 0o755 if name.endswith(".so") else 0o644)
PY
mv -f "$partial/libonnxruntime.so" "$out/libonnxruntime.so"
mv -f "$partial/ThirdPartyNotices.txt" "$out/ThirdPartyNotices.txt"
echo "$out/libonnxruntime.so"
