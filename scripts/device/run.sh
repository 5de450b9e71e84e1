#!/usr/bin/env bash
# bash run.sh [--device cuda|cpu] [--only PHASES] [--budget SECONDS]
#
# Runs the device check from a folder that `npm run pack:device` has made. Needs python3 with torch (or LIBTORCH), CMake,
# make or ninja, and a C++20 compiler. Everything is unpacked into a temporary folder, and the addon is built there: half
# a minute on 16 cores, five on 2, which the budget does not count.
#
# $OUT (default ./device-check) receives results.json, summary.txt and setup.log. Exit code: that of the check; 1 when
# the set-up fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$PWD/device-check}
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d "${TMPDIR:-/tmp}/miro-device-XXXXXX")
trap 'rm -rf "$work"' EXIT

unpack() {
  if command -v xz >/dev/null; then xz -dc "$1"; else
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
  fi
}
mkdir "$work/bin" "$work/miro"
unpack "$here/node.xz" >"$work/bin/node"
chmod +x "$work/bin/node"
unpack "$here/tree.tar.xz" | tar -x -C "$work/miro"
export PATH=$work/bin:$PATH NO_COLOR=1
cd "$work/miro"
echo "unpacked after $SECONDS s"
if ! node scripts/setup.mjs --only libtorch,addon 2>"$out/setup.log"; then
  cat "$out/setup.log" >&2
  exit 1
fi
echo "set up after $SECONDS s"
code=0
node tests/dist/device/main.js --json "$@" 2>"$out/summary.txt" >"$out/results.json" || code=$?
cat "$out/summary.txt"
exit "$code"
