# shellcheck shell=bash
# What the machine must bring. All of it is looked at before anything long starts.

missing=()
need() { missing+=("  $1"); }

# at_least WANT HAVE: true when version HAVE is WANT or newer.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ]; }

# find_python: the first Python 3.11 or 3.12 that really runs (a version manager's shim may not).
find_python() {
  local candidate
  for candidate in python3.11 python3.12 python3 python; do
    "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
      >/dev/null 2>&1 && { "$candidate" -c 'import sys; print(sys.executable)'; return 0; }
  done
  return 1
}

check_python() {
  python=$(find_python) || { need 'Python 3.11 or 3.12: apt-get install python3.11 python3.11-venv'; return; }
  [ -n "$(uv_path)" ] || "$python" -c 'import venv, ensurepip' >/dev/null 2>&1 \
    || need 'the venv module of Python: apt-get install python3-venv'
}

check_java() {
  local version
  version=$(java -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p') || version=''
  at_least 17 "${version:-0}" && command -v javac >/dev/null \
    || need "Java 17 or newer with javac (found: ${version:-none}): apt-get install openjdk-17-jdk-headless"
  command -v mvn >/dev/null || need 'Maven: apt-get install maven'
}

go_version() { go env GOVERSION 2>/dev/null | sed 's/^go//'; }

# Only where the mock engine has to be built, which is a second's work but needs Go.
check_go() {
  local go
  go=$(go_version) || go=''
  at_least 1.23 "${go:-0}" || need "Go 1.23 or newer (found: ${go:-none}), to build the mock engine: https://go.dev/dl, or apt-get install golang-go where that is as new"
}

# Only where influxd has to be built.
check_go_and_rust() {
  local go rust
  go=$(go_version) || go=''
  rust=$(rustc --version 2>/dev/null | cut -d' ' -f2) || rust=''
  at_least 1.23 "${go:-0}" || need "Go 1.23 or newer (found: ${go:-none}), to build influxd: apt-get install golang-go, or put an influxd 2.7 on PATH"
  at_least 1.72 "${rust:-0}" && command -v cargo >/dev/null \
    || need "Rust 1.72 or newer with cargo (found: ${rust:-none}), to build influxd: apt-get install cargo rustc"
  command -v gcc >/dev/null || need 'a C compiler, to build influxd: apt-get install gcc libc6-dev'
}

check_machine() {
  check_python
  check_java
  command -v flock >/dev/null || need 'flock: apt-get install util-linux'
  has_mock_engine || check_go
  has_influxd || check_go_and_rust
  [ ${#missing[@]} = 0 ] || die 'This machine lacks:' "${missing[@]}" \
    '' 'Install what is named, then run the same command again; nothing was started.'
}
