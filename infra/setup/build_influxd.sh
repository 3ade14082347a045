#!/usr/bin/env bash
# usage: build_influxd.sh VERSION FOLDER: FOLDER/influxd, built from its Go module.
#
# 4 to 6 minutes on two cores the first time: most of it is Rust, the Flux parser. A plain
# `go install` fails for three reasons: a replaced module that `go install` would ignore; a
# toolchain file that asks for a Rust of 2023; and warnings that Flux denies, of which a newer
# rustc has more (RUSTFLAGS does not reach that build, a wrapper does).
set -euo pipefail

mkdir -p "$2"
cd "$2"
folder=$PWD
# Go and pkg-config split paths at blanks: then everything is built elsewhere.
case ${HOME:-}$folder in
  *[!A-Za-z0-9._/-]*)
    plain=$(mktemp -d /tmp/sage-influxd.XXXXXX)
    trap 'chmod -R u+w "$plain"; rm -rf "$plain"' EXIT
    export GOPATH=$plain/go GOCACHE=$plain/cache
    mkdir "$plain/module"
    cd "$plain/module"
    ;;
esac

cat >go.mod <<MOD
module sage/influxd
go 1.23.0
require github.com/influxdata/influxdb/v2 v$1
replace github.com/nats-io/nats-streaming-server v0.11.2 => github.com/influxdata/nats-streaming-server v0.11.3-0.20201112040610-c277f7560803
tool github.com/influxdata/influxdb/v2/cmd/influxd
MOD

cat >rustc-wrap <<'WRAP'
#!/bin/sh
rustc="$1"; shift
exec "$rustc" "$@" --cap-lints warn
WRAP
chmod +x rustc-wrap

if command -v rustup >/dev/null; then
  RUSTUP_TOOLCHAIN=$(rustup toolchain list | awk 'NR == 1 { print $1 }')
  export RUSTUP_TOOLCHAIN
fi

go mod tidy
GOBIN="$PWD/bin" go install github.com/influxdata/pkg-config@v0.2.14
PKG_CONFIG="$PWD/bin/pkg-config" RUSTC_WRAPPER="$PWD/rustc-wrap" \
  go build -o influxd -tags sqlite_foreign_keys,sqlite_json github.com/influxdata/influxdb/v2/cmd/influxd
./influxd version
[ "$PWD" = "$folder" ] || mv influxd "$folder/"
