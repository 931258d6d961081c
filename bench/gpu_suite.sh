#!/usr/bin/env bash
# All that a GPU is asked for, in one call:  bash bench/gpu_suite.sh FOLDER
# Runs the gpu-marked tests, the benchmarks on cuda and cpu, and each workload's step against PyTorch (eager,
# channels_last, torch.compile, CUDA graph), every side in a process of its own.  FOLDER gets logs and JSON.
set -uo pipefail
out=${1:?usage: bench/gpu_suite.sh FOLDER}
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 XPNET_REQUIRE_CUDA=1
python=${PYTHON:-python3}

{ date -u; nvidia-smi; "$python" -m xpnet doctor; } > "$out/machine.log" 2>&1

timeout 180 "$python" -m pytest tests -m gpu -q -x --maxfail=20 -p no:cacheprovider > "$out/tests.log" 2>&1
echo "gpu tests: exit $? - $(tail -n 1 "$out/tests.log")"

: > "$out/compare.jsonl"
for workload in digits-cnn mnist-mlp lenet mnist-cnn cifar-vgg; do
  for side in xpnet eager channels_last graph compile; do
    timeout 90 "$python" -m bench.gpu_compare "$side" "$workload" >> "$out/compare.jsonl" 2>> "$out/compare.log" \
      || echo "{\"side\": \"$side\", \"workload\": \"$workload\", \"error\": \"exit $?\"}" >> "$out/compare.jsonl"
  done
done
cat "$out/compare.jsonl"

timeout 180 "$python" -m pytest bench --benchmark-only -q -k "cuda" --benchmark-max-time=0.2 \
  --benchmark-json="$out/bench.json" -p no:cacheprovider > "$out/bench.log" 2>&1
echo "benchmarks: exit $?"
