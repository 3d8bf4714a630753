#!/usr/bin/env bash
# Everything that needs a GPU, in one command of at most nine minutes, on a machine without a network:
#
#     benchmarks/on_device.sh [FOLDER]
#
# It runs tests/gpu for PyTorch, JAX and Keras, then the benchmarks gpu_capture, gpu_predict and
# gpu_schedule, and writes on_device.json and each part's output into FOLDER (by default on_device).
# It takes the Python that is there ($PYTHON, or python3) with the packages that it has. Those it
# lacks are taken from wheels in the folder .wheels, filled beforehand where there is a network, as:
#
#     python -m pip download --no-deps --only-binary=:all: --python-version 3.12 -d .wheels \
#         keras namex optree hypothesis sortedcontainers
#
# It ends with 1 where a part failed, or where there is no GPU.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
export PYTHONPATH="$PWD/src:$PWD"
if compgen -G '.wheels/*.whl' > /dev/null; then
  site=$(mktemp -d)
  trap 'rm -rf "$site"' EXIT
  "$python" -m pip install --quiet --no-index --no-deps --no-compile --target "$site" .wheels/*.whl
  PYTHONPATH="$PYTHONPATH:$site"
fi
"$python" -m benchmarks.on_device "${1:-on_device}"
