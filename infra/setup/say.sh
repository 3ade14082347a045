# shellcheck shell=bash
# How setup, check and test print: one line per step, `[ 3/10] kafka jars ......... 2.1 s`.
# On a terminal the running step counts its seconds (the counter ends with the script, which Ctrl-C
# does not reach: background jobs ignore SIGINT); in a log each line is written once.

LC_NUMERIC=C
say_width=62

now_ms() { local t=${EPOCHREALTIME/[.,]/}; echo $((t / 1000)); }

seconds_since() { local ms=$(($(now_ms) - $1)); printf '%d.%d s' $((ms / 1000)) $((ms % 1000 / 100)); }

# say_head LABEL: the label with dots up to the column of the result, no newline.
say_head() {
  local dots
  dots=$(printf '%*s' $((say_width > ${#1} ? say_width - ${#1} : 3)) '')
  printf '%s %s ' "$1" "${dots// /.}"
}

say_line() { [ -t 1 ] && printf '\r\033[K'; say_head "$1"; printf '%s\n' "$2"; }

die() { { printf '\n'; printf '%s\n' "$@"; } >&2; exit 1; }

# timed LABEL LOG COMMAND...: runs it with its output in LOG and leaves its status in $timed_status.
# Call it as a plain statement: behind `||` or `if` bash drops `set -e` in all that it runs, and a
# maker whose middle line failed would count as done.
timed() {
  local label=$1 log=$2 ticker='' start
  shift 2
  start=$(now_ms)
  mkdir -p "$(dirname "$log")"
  if [ -t 1 ]; then
    ( while kill -0 $$ 2>/dev/null; do printf '\r\033[K'; say_head "$label"; seconds_since "$start"; sleep 1; done ) &
    ticker=$!
  else
    say_head "$label"
  fi
  set +e
  ( set -e; "$@" ) >"$log" 2>&1 </dev/null
  timed_status=$?
  set -e
  if [ -n "$ticker" ]; then
    kill "$ticker" 2>/dev/null || true
    wait "$ticker" 2>/dev/null || true
    printf '\r\033[K'
    say_head "$label"
  fi
  [ "$timed_status" = 0 ] || printf 'FAILED after '
  printf '%s\n' "$(seconds_since "$start")"
}

# hash_of FILE|TEXT...: twelve characters that change when any of them does.
hash_of() {
  local item
  for item in "$@"; do if [ -f "$item" ]; then cat "$item"; else printf '%s\n' "$item"; fi; done \
    | sha256sum | cut -c1-12
}

# hash_tree FOLDER NAME...: the same for the files below FOLDER/NAME, whatever FOLDER is called.
hash_tree() {
  local folder=$1
  shift
  (cd "$folder" && find "$@" -type f 2>/dev/null | LC_ALL=C sort | xargs -r sha256sum) | sha256sum | cut -c1-12
}
