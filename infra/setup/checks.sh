# shellcheck shell=bash
# What the machine must have. Everything is checked before anything long starts.

missing=()
need() { missing+=("  $1"); }

# at_least WANT HAVE: true when version HAVE is WANT or newer.
at_least() { [ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -1)" = "$1" ]; }

# find_python: sets python, python_version and python_build. Of the Pythons 3.11 and 3.12 on PATH and
# in the usual places, the first that was built with optimisations; without one, the first.
find_python() {
  local name folder rank path version first='' without_uv=''
  python=''
  [ -n "$(uv_path)" ] || without_uv=venv
  for name in python3.11 python3.12 python3 python; do
    while IFS= read -r folder; do
      [ -x "$folder/$name" ] || continue
      # A version manager's shim may be there without the version behind it.
      IFS=$'\t' read -r rank path version < <("$folder/$name" -I -B "$repo/infra/setup/interpreter.py" $without_uv </dev/null 2>/dev/null) || continue
      first=${first:-$path}
      if [ "$rank" = 1 ]; then
        python=$path python_version=$version python_build='built with optimisations'
        [ "$path" = "$first" ] || python_build="$python_build, as $first is not"
        return
      fi
      [ -n "$python" ] || { python=$path python_version=$version python_build='built without optimisations: a third slower'; }
    done < <(tr : '\n' <<<"$PATH:/usr/local/bin:/usr/bin")
  done
  [ -n "$python" ]
}

check_python() {
  [ -n "$python" ] || find_python || need 'Python 3.11 or 3.12 with venv and C headers: apt-get install python3.11 python3.11-venv python3.11-dev'
}

check_flock() {
  command -v flock >/dev/null || need 'flock: apt-get install util-linux'
}

# The lines of "$@" follow the list.
require_all_found() {
  [ ${#missing[@]} = 0 ] || die 'This machine lacks:' "${missing[@]}" "$@"
}

check_java() {
  local version
  version=$(java -version 2>&1 | sed -n '1s/[^"]*"\([0-9]*\).*/\1/p') || version=''
  at_least 17 "${version:-0}" && command -v javac >/dev/null \
    || need "Java 17 or newer with javac (found: ${version:-none}): apt-get install openjdk-17-jdk-headless"
  command -v mvn >/dev/null || need 'Maven: apt-get install maven'
}

go_version() { go env GOVERSION 2>/dev/null | sed 's/^go//'; }

# Only if the mock engine has to be built, which takes a second but needs Go.
check_go() {
  local go
  go=$(go_version) || go=''
  at_least 1.23 "${go:-0}" || need "Go 1.23 or newer (found: ${go:-none}), to build the mock engine: https://go.dev/dl, or apt-get install golang-go where that is as new"
}

# Only if influxd has to be built.
check_go_and_rust() {
  local go rust
  go=$(go_version) || go=''
  rust=$(rustc --version 2>/dev/null | cut -d' ' -f2) || rust=''
  at_least 1.23 "${go:-0}" || need "Go 1.23 or newer (found: ${go:-none}), to build influxd: https://go.dev/dl, or put an influxd 2.7 on PATH"
  at_least 1.72 "${rust:-0}" && command -v cargo >/dev/null \
    || need "Rust 1.72 or newer with cargo (found: ${rust:-none}), to build influxd: https://rustup.rs, or apt-get install cargo rustc where that is as new"
  command -v gcc >/dev/null || need 'a C compiler, to build influxd: apt-get install gcc libc6-dev'
}

# first_there PATH: the path itself, or its nearest parent that exists.
first_there() { local path=$1; until [ -e "$path" ]; do path=$(dirname "$path"); done; printf '%s\n' "$path"; }

# check_path NAME FOLDER: nothing can be installed below a path with a colon, which separates the
# entries of PATH and of a Java class path, or with a control character.
check_path() {
  case $2 in *:* | *[[:cntrl:]]*) die "$1 is $(printf '%q' "$2"): the path may not hold a colon or a control character." \
    'Use another folder, then run the same command again.' ;; esac
}

# check_folder NAME FOLDER MIB: it can be written, and has so much space or what it needs already.
check_folder() {
  local there free
  there=$(first_there "$2")
  [ -d "$there" ] && [ -w "$there" ] && [ -x "$there" ] || { need "a $1 that you may write; $there is not: set $1 to another folder"; return; }
  free=$(df -Pm "$there" | awk 'NR == 2 { print $4 }')
  [ "$free" -ge "$3" ] || need "$3 MiB of disk space in $1 ($2 has $free MiB): free some, or set $1 to a folder on a larger disk"
}

# Measured: the environments take 1.4 GiB in SAGE_HOME; in SAGE_CACHE, models and servers take 2.1
# GiB, and the build of influxd another 2 while it runs. A repeat adds logs only.
check_folders() {
  local home_mib=50 cache_mib=50
  has_flink_venv || home_mib=2000
  { has_milvus && has_engines; } || cache_mib=3000
  has_influxd || cache_mib=$((cache_mib + 2000))
  check_folder SAGE_HOME "$home" "$home_mib"
  check_folder SAGE_CACHE "$cache" "$cache_mib"
}

check_machine() {
  check_python
  check_java
  check_flock
  has_mock_engine || check_go
  has_influxd || check_go_and_rust
  check_folders
  require_all_found '' 'Install what is listed, then run the same command again.'
}
