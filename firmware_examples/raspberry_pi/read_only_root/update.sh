#!/bin/sh
# sudo sh firmware_examples/raspberry_pi/read_only_root/update.sh edge-vad-overlay/install.sh [OPTIONS]
#
# A new overlay on a sealed unit. Program, configuration and bundles lie on the data partition; the service file
# lies on the root, which is writable for as long as install.sh runs.
set -eu
mount -o remount,rw /
trap 'sync; mount -o remount,ro / || echo "update: the root is still in use: reboot" >&2' EXIT
sh "$@"
