#!/usr/bin/env bash
# Starts the server with the test models and runs the public Python clients against it, unmodified.
# Usage: run.sh SERVER LIBONNXRUNTIME TARGET; the virtual environments are kept under TARGET, keyed by their pins.
set -euo pipefail
# Absolute, because the scripts run in their own directory.
server=$(realpath "$1") library=$(realpath "$2") target=$(realpath "$3")
here=$(cd "$(dirname "$0")" && pwd)
models=$here/../models
work=$(mktemp -d)
pid=
cleanup() {
  if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

venv() { # venv NAME REQUIREMENTS: prints the directory
  local pins dir
  pins=$(sha256sum "$2" | cut -c1-12)
  dir=$target/clients/$1-$pins
  if [[ ! -f $dir/complete ]]; then
    rm -rf "$dir"
    python3 -m venv "$dir" >&2
    "$dir/bin/pip" install --quiet --disable-pip-version-check -r "$2" >&2
    touch "$dir/complete"
  fi
  printf '%s\n' "$dir"
}
triton=$(venv triton "$here/requirements.txt")
kserve=$(venv kserve "$here/requirements-kserve.txt")

for name in types affine; do
  mkdir -p "$work/repository/$name/1"
  cp "$models/$name.onnx" "$work/repository/$name/1/model.onnx"
done
ORT_DYLIB_PATH=$library SLIPWAY_CACHE_DIR=$work/cache SLIPWAY_TERMINATION_LOG=$work/termination \
  "$server" serve --model-uri "$models/simple.onnx" --model-name simple --model-repository "$work/repository" \
  --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --drain-delay-seconds 0 >"$work/log" &
pid=$!
deadline=$((SECONDS + 60))
until grep -q '"message":"ready"' "$work/log"; do
  if ! kill -0 "$pid" 2>/dev/null || ((SECONDS > deadline)); then
    cat "$work/log" >&2
    exit 1
  fi
  sleep 0.1
done
SLIPWAY_HTTP=$(sed -n 's/.*"message":"listening".*"api":"\([^"]*\)".*/\1/p' "$work/log")
export SLIPWAY_HTTP
for name in types affine; do
  "$triton/bin/python" -c 'import sys, tritonclient.http as h; h.InferenceServerClient(sys.argv[1]).load_model(sys.argv[2])' "$SLIPWAY_HTTP" "$name"
done

status=0
run() { # run VENV SCRIPT
  echo "== $2"
  (cd "$here" && "$1/bin/python" "$2") || status=1
}
run "$triton" triton_http.py
run "$triton" triton_grpc.py
run "$kserve" kserve_client.py
exit $status
