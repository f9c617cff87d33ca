#!/bin/sh
# Installs this overlay on this unit; needs root, no network. install.sh --check | --rollback; see docs/provision.md
set -eu
cd "$(dirname "$0")"
[ "$(id -u)" = 0 ] || { echo "install.sh: only root may: sudo sh $0 $*" >&2; exit 1; }
[ -x /usr/bin/python3 ] || { echo "install.sh: /usr/bin/python3 is missing: apt-get install python3" >&2; exit 1; }
# -B: what is left in the overlay afterwards is what came with it.
exec /usr/bin/python3 -B install.py "$@"
