# shellcheck shell=bash disable=SC1090,SC2034
# What the clients written in bash share. Sourced; HERE, W (a folder of this client's own), FILES, CLIENT and REDOUBT
# are given by scripts/clients.
# Under pipefail no reader may leave before its writer is done: "| grep -q" would fail what it has found.
set -uo pipefail
: "${CLIENT:?run scripts/clients}" "${W:?}" "${FILES:?}"
BUCKET=c-$CLIENT
ODD='naïve ü +plus & space (1).txt'
S=SECRET

# check NAME FUNCTION [ARG...] runs a function, which fails at its first failing command.
check() {
  local name=$1 rc
  shift
  (set -e; "$@") >"$W/check.log" 2>&1
  rc=$?
  if [ $rc -eq 0 ]; then
    echo "ok   $CLIENT: $name"
  else
    echo "FAIL $CLIENT: $name"
    tail -c 2000 "$W/check.log" | sed 's/^/       /'
  fi
}

skip() { echo "skip $CLIENT: $1: $2"; }

# need COMMAND skips the whole client where its command is missing.
need() {
  if ! [ -x "$1" ] && ! command -v "$1" >/dev/null; then
    skip everything "$1 is not installed; scripts/deps installs it on Debian as root"
    echo end
    exit 0
  fi
}

# credential NAME SUBJECT@NODE [FLAG...] keeps what env prints for a client.
credential() {
  local name=$1
  shift
  "$REDOUBT" env "$@" >"$W/$name.env" 2>"$W/env.log" || { cat "$W/env.log"; echo "FAIL $CLIENT: env $*"; exit 1; }
}

# as NAME COMMAND... runs a command with a credential's environment.
as() {
  local name=$1
  shift
  (set -e; . "$W/$name.env"; "$@")
}

# refused PATTERN COMMAND... wants the command to fail and to say why.
refused() {
  local pattern=$1 out
  shift
  if out=$("$@" 2>&1); then
    echo "was not refused: $*: $out"
    return 1
  fi
  grep -qE -- "$pattern" <<<"$out" || { echo "refused otherwise than by $pattern: $out"; return 1; }
}

# is WANT GOT
is() { [ "$1" = "$2" ] || { echo "want: $1"; echo "got:  $2"; return 1; }; }

# has TEXT PATTERN; hasnt TEXT PATTERN
has() { grep -qE -- "$2" <<<"$1" || { echo "no $2 in: $1"; return 1; }; }
hasnt() { if grep -qE -- "$2" <<<"$1"; then echo "there is $2 in: $1"; return 1; fi; }

# etag FILE ETAG wants an ETag that is the content's MD5, or one that no client can take for an MD5.
etag() {
  local tag=${2//\"/}
  [[ $tag =~ ^[0-9a-fA-F]{32}$ ]] || return 0
  is "$(md5sum <"$1" | cut -d' ' -f1)" "$tag"
}
