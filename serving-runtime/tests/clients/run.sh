#!/usr/bin/env bash
# Starts the server with the test models and runs the public Python clients against it, unmodified.
# Usage: run.sh SERVER LIBONNXRUNTIME TRITON KSERVE ONNX; SERVER is built with the feature model-repository, the last three are Python
# environments with requirements*.txt in them.
# `make e2e GROUP=clients` makes them. The last line counts the scripts that passed and failed.
set -euo pipefail
# Absolute, because the scripts run in their own directory.
server=$(realpath "$1") library=$(realpath "$2") triton=$(realpath "$3") kserve=$(realpath "$4") onnx=$(realpath "$5")
here=$(cd "$(dirname "$0")" && pwd)
models=$here/../models
work=$(mktemp -d)
pid=
cleanup() {
  if [[ -n $pid ]]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -rf "$work"
}
trap cleanup EXIT

for name in types affine; do
  mkdir -p "$work/repository/$name/1"
  cp "$models/$name.onnx" "$work/repository/$name/1/model.onnx"
done
ORT_DYLIB_PATH=$library SLIPWAY_CACHE_DIR=$work/cache SLIPWAY_TERMINATION_LOG=$work/termination \
  "$server" serve --model-uri "$models/simple.onnx" --model-name simple --model-repository "$work/repository" \
  --workers 2 --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0 --drain-delay-seconds 0 >"$work/log" &
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

passed=0 failed=0
run() { # run ENVIRONMENT SCRIPT
  echo "== $2"
  if (cd "$here" && "$1/bin/python" "$2"); then passed=$((passed + 1)); else failed=$((failed + 1)); fi
}
run "$triton" triton_http.py
run "$triton" triton_grpc.py
run "$kserve" kserve_client.py
SLIPWAY_REPOSITORY=$work/repository SLIPWAY_COMMIT=$(git -C "$here" rev-parse HEAD 2>/dev/null || true)
export SLIPWAY_REPOSITORY SLIPWAY_COMMIT
run "$onnx" onnx_nodes.py
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
