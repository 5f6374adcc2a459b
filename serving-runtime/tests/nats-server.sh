#!/bin/sh
# Builds the nats-server that e2e/tools/nats pins, once, and prints where it is.
# Usage: nats-server.sh [target folder of the build]
set -eu

here=$(cd "$(dirname "$0")" && pwd -P)
tools=$here/../../e2e/tools/nats
version=$(sed -n 's,^.*github.com/nats-io/nats-server/v2 v\([0-9.]*\).*,\1,p' "$tools/go.mod" | tail -1)
target=${1:-${CARGO_TARGET_DIR:-$here/../../target}}
out=$target/tools/nats-server-$version
if [ ! -x "$out/nats-server" ]; then
  mkdir -p "$out"
  out=$(cd "$out" && pwd -P)
  # Under another name until it is whole: others may be looking for it.
  (cd "$tools" && CGO_ENABLED=0 go build -trimpath -mod=readonly -o "$out/nats-server.$$" github.com/nats-io/nats-server/v2)
  mv "$out/nats-server.$$" "$out/nats-server"
fi
(cd "$out" && pwd -P | sed 's,$,/nats-server,')
