#!/usr/bin/env bash
# Fuzzes the decoders, and stores new inputs in the corpus: fuzz/run.sh [SECONDS] [TARGET...]
# Each target runs for that many seconds (default 600) on one core, two targets at a time. A failed assertion ends the run and reports its input;
# inputs that reached new code are merged into fuzz/corpus/<target>.b64 (base64, one input per line), which the tests replay.
set -euo pipefail
cd "$(dirname "$0")/.."
version=0.13.2
seconds=${1:-600}
[ $# -eq 0 ] || shift
[ $# -gt 0 ] || set -- rest binary grpc queue state onnx

root=target/tools/cargo-fuzz-$version
[ -x "$root/bin/cargo-fuzz" ] || cargo install --quiet --locked --version "$version" --root "$root" cargo-fuzz
PATH="$PWD/$root/bin:$PATH"
work=$PWD/target/fuzz
mkdir -p "$work"
# Our code has no `unsafe`, and the targets contain assertions, so no sanitizer is needed and the pinned toolchain suffices.
fuzz=(cargo fuzz)
flags=(--fuzz-dir fuzz/libfuzzer --sanitizer none --target-dir "$work/build")
"${fuzz[@]}" build "${flags[@]}"
cargo run --quiet --locked --package slipway-fuzz -- "$work/seeds"

one() {
  local target=$1 seconds=$2 corpus=$work/corpus/$1
  mkdir -p "$corpus" "$work/artifacts/$target"
  if [ -f "fuzz/corpus/$target.b64" ]; then
    local number=0 line
    while read -r line; do
      base64 -d <<<"$line" >"$corpus/kept-$((number += 1))"
    done <"fuzz/corpus/$target.b64"
  fi
  # At most 10 s and half a GiB per input: a decoder that needs more for 4 KiB is broken as well.
  if ! "${fuzz[@]}" run "${flags[@]}" "$target" "$corpus" "$work/seeds/$target" -- -max_total_time="$seconds" -max_len=4096 -timeout=10 \
    -rss_limit_mb=512 -print_final_stats=1 -artifact_prefix="$work/artifacts/$target/" >"$work/$target.log" 2>&1; then
    tail -40 "$work/$target.log" >&2
    echo "$target: broken; the input is under target/fuzz/artifacts/$target" >&2
    return 1
  fi
  rm -rf "$work/small/$target" && mkdir -p "$work/small/$target"
  "${fuzz[@]}" run "${flags[@]}" "$target" "$work/small/$target" "$corpus" "$work/seeds/$target" -- -merge=1 -max_len=4096 >>"$work/$target.log" 2>&1
  local file
  for file in "$work/small/$target"/*; do
    base64 -w0 "$file"
    echo
    # Short inputs are as useful, and the repository stores them all.
  done | awk 'length <= 900' | LC_ALL=C sort -u >"fuzz/corpus/$target.b64"
  awk -v target="$target" -v kept="$(wc -l <"fuzz/corpus/$target.b64")" '/number_of_executed_units/ && !runs { runs = $2 } /cov: [0-9]+ ft/ { for (i = 1; i < NF; i++) if ($i == "cov:") cov = $(i + 1) }
    END { printf "%-8s clean: %d inputs tried, %d places of the code reached, %d inputs kept\n", target, runs, cov, kept }' "$work/$target.log"
}

failed=0
while [ $# -gt 0 ]; do
  pids=()
  for target in "${@:1:2}"; do
    one "$target" "$seconds" &
    pids+=($!)
  done
  shift ${#pids[@]}
  for pid in "${pids[@]}"; do
    wait "$pid" || failed=1
  done
done
exit "$failed"
