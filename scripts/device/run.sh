#!/usr/bin/env bash
# bash run.sh [--device cuda|cpu] [--only PHASES] [--budget SECONDS]   the device check
# bash run.sh bench NAME [--device cuda] [OPTIONS]                     a benchmark: sampling, training, checkpoint, ops
#
# Runs on a machine without Node and npm from a folder that `npm run pack:device` has made. Needs python3 with torch (or
# LIBTORCH), CMake, make or ninja, and a C++20 compiler. Everything is unpacked into a temporary folder, and the addon is
# built there: half a minute on 16 cores, five on 2, which the budget does not count. With WORK=FOLDER it is done in that
# folder and stays, so that further calls begin at once.
#
# $OUT (default ./device-check) receives setup.log; results.json (anew after each phase) and summary.txt of the check;
# NAME.json of a benchmark (sampling and training: anew after each thing measured), and bench.txt with what benchmarks
# printed. All of it is there as it comes: a call that is stopped loses what it was at. --python python3 measures the
# published Python code as well, where that Python has it. Exit code: that of the check or benchmark; 1 when the set-up
# fails.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${OUT:-$PWD/device-check}
mkdir -p "$out"
out=$(cd "$out" && pwd)
if [ -n "${WORK:-}" ]; then
  mkdir -p "$WORK"
  work=$(cd "$WORK" && pwd)
else
  work=$(mktemp -d "${TMPDIR:-/tmp}/miro-device-XXXXXX")
  trap 'rm -rf "$work"' EXIT
fi

unpack() {
  if command -v xz >/dev/null; then xz -dc "$1"; else
    python3 -c 'import lzma, shutil, sys; shutil.copyfileobj(lzma.open(sys.argv[1]), sys.stdout.buffer)' "$1"
  fi
}
export PATH=$work/bin:$PATH NO_COLOR=1
# What dies by a signal tells where its threads are, and leaves no dump of its memory.
export MIRO_STACKS=1
ulimit -c 0
# Virtual machines whose memory grows as it is used begin with little: it would allow few compilers at a time.
export MIRO_JOBS=${MIRO_JOBS:-$(nproc)}
mkdir -p "$work/bin"
ready=$work/ready-$(cksum <"$here/tree.tar.xz" | cut -d' ' -f1)
if [ ! -e "$ready" ]; then
  rm -rf "$work/miro" "$work"/ready-* # of another kit
  mkdir "$work/miro"
  cd "$work/miro"
  unpack "$here/node.xz" >"$work/bin/node"
  chmod +x "$work/bin/node"
  unpack "$here/tree.tar.xz" | tar -x
  echo "unpacked after $SECONDS s"
  if ! node scripts/setup.mjs --only libtorch,addon 2>"$out/setup.log"; then
    cat "$out/setup.log" >&2
    exit 1
  fi
  touch "$ready"
  echo "set up after $SECONDS s"
fi
cd "$work/miro"
code=0
if [ "${1:-}" = bench ]; then
  shift
  rm -rf bench/results # of an earlier call
  ln -s "$out" bench/results # so that figures are there as they come, whenever it is stopped
  node bench/dist/main.js "$@" 2>&1 | tee -a "$out/bench.txt" || code=$?
else
  node tests/dist/device/main.js --output "$out/results.json" "$@" 2>&1 | tee "$out/summary.txt" || code=$?
fi
exit "$code"
