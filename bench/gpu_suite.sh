#!/usr/bin/env bash
# All that a GPU is asked for, in one call:  bash bench/gpu_suite.sh FOLDER [STAGE ...]
#
# Stages, in this order unless others are named: machine checks steps rates train devices probe compile bench.
# `checks` runs the gpu-marked tests and the parity report side by side; all that is timed runs alone.  `train` trains
# resnet9 until it knows 92% of CIFAR-10's test images (MORE: further arguments of examples/cifar_resnet9.py).  LIMIT
# (540) is the seconds for all of them; a stage gets at most its own share and what is left.  PROBE: path of the
# design's GPU probe, which the stage `probe` runs.  DEVICE=cpu tries the stages steps, rates and train out.  FOLDER
# gets rows.jsonl, in which every figure stands as soon as it is known, results.json and report.md, made anew after
# each stage, and logs.  Nothing needs to be installed but what the library imports, pytest with pytest-benchmark,
# PyTorch, and Pillow where CIFAR-10 lies in XPNET_DATA as JPEG files.
set -uo pipefail
out=${1:?usage: bench/gpu_suite.sh FOLDER [STAGE ...]}; shift
mkdir -p "$out"
out=$(cd "$out" && pwd)
probe=${PROBE:+$(realpath "$PROBE")}
cd "$(dirname "$0")/.."
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 XPNET_REQUIRE_CUDA=1
for data in shared/data ../shared/data; do
  [ -n "${XPNET_DATA:-}" ] || [ ! -d $data ] || export XPNET_DATA=$PWD/$data
done
python=${PYTHON:-python3} log=$out/suite.log rows=$out/rows.jsonl device=${DEVICE:-cuda} end=$((SECONDS + ${LIMIT:-540}))
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# run NAME SECONDS LOG COMMAND...: the command under its time limit, its output in LOG, a row that says how it ended
run() {
  local name=$1 limit=$2 file=$3 left=$((end - SECONDS)) start=$SECONDS status; shift 3
  if [ $left -lt 10 ]; then echo "== $name: no time left"; return; fi
  echo "== $name: $*" >> "$file"
  timeout -k 5 $((limit < left ? limit : left)) "$@" >> "$file" 2>&1
  status=$?
  echo "== $name: exit $status after $((SECONDS - start)) s"
  "$python" - "$rows" "$name" $((SECONDS - start)) $status "$(tail -n 1 "$file" | cut -c 1-200)" <<'END'
import sys
from bench import rows
path, name, seconds, status, last = sys.argv[1:]
rows.append(path, {"kind": "stage", "name": name, "seconds": int(seconds), "status": int(status), "last": last})
END
}

step() { run "$1" "$2" "$log" "$python" -m bench.gpu_compare --device "$device" --side "${@:3}" --rows "$rows"; }

tests() {
  local parallel=()
  "$python" -c "import xdist" 2> /dev/null && parallel=(-n "${WORKERS:-12}" --dist worksteal)
  # another machine's libraries may warn of what is to come; a test that expects a warning still checks for it
  run tests "${TESTS:-170}" "$out/tests.log" "$python" -m pytest tests -m gpu -q --maxfail=25 "${parallel[@]}" -p no:cacheprovider \
    -p no:benchmark -o faulthandler_timeout=100 -W default::DeprecationWarning -W default::FutureWarning
}

stages=("$@")
[ $# -gt 0 ] || stages=(machine checks steps rates train devices probe compile bench)
for stage in "${stages[@]}"; do
  case $stage in
    machine)
      "$python" -c "from bench import rows; rows.append('$rows', rows.machine())"
      run machine 60 "$log" bash -c "nvidia-smi; '$python' -m xpnet doctor"
      ;;
    checks)
      tests &
      run parity 170 "$log" "$python" -m bench.parity --rows "$rows" --limit 90
      wait
      tail -n 3 "$out/tests.log"
      ;;
    tests) tests ;;
    parity) run parity 170 "$log" "$python" -m bench.parity --rows "$rows" --limit 90 ;;
    steps) # the jobs named by default, but for the rates
      jobs=$("$python" -c "from bench.gpu_compare import STEPS; print(*STEPS)")
      step "xpnet" 90 xpnet --limit 60 $jobs
      step "PyTorch graph" 60 graph --limit 30 $jobs
      step "PyTorch eager" 60 eager --limit 30 $jobs
      step "PyTorch channels_last" 60 channels_last --limit 30 ${jobs/mnist-mlp\/1000\/auto/}
      ;;
    rates)
      jobs=$("$python" -c "from bench.gpu_compare import RATES; print(*RATES)")
      step "rates of xpnet" 75 xpnet --limit 45 $jobs
      step "rates of PyTorch" 45 eager --limit 30 $jobs
      ;;
    train) run "resnet9 to 92%" 170 "$log" "$python" -m bench.reach --device "$device" --rows "$rows" -- ${MORE:-} ;;
    devices) run devices 110 "$log" "$python" -m bench.devices --rows "$rows" --plot "$out/devices.png" --limit 45 ;;
    compile) step "PyTorch compile" 150 compile --limit 75 $("$python" -c "from bench.gpu_compare import STEPS; print(*STEPS)") ;;
    probe) [ -z "$probe" ] || run probe 90 "$out/probe.log" "$python" "$probe" ;;
    bench)
      for part in layers workloads ops; do
        run "benchmarks of $part" 60 "$log" "$python" -m pytest "bench/bench_$part.py" -q --benchmark-only \
          --benchmark-max-time=0.1 --benchmark-min-rounds=3 --benchmark-json="$work/$part.json" --benchmark-columns=median \
          -p no:cacheprovider -p no:xdist -W default::DeprecationWarning
        [ ! -s "$work/$part.json" ] || "$python" -m bench.devices --from "$work/$part.json" --rows "$rows" >> "$log"
      done
      ;;
    *) echo "unknown stage: $stage" ;;
  esac
  "$python" -m bench.gpu_report "$out" > "$work/targets.md"
done
cat "$work/targets.md"
