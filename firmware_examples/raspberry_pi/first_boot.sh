#!/bin/sh
# On the unit, as root, once: unpacks the overlay beside this file and has it installed at the next boot, or --now.
# sh /boot/firmware/edge-vad/first_boot.sh [--now] [ROOT]      ROOT: another root than /
set -eu
now=''
[ "${1:-}" != --now ] || { now=1; shift; }
root=${1:-}
from=$(dirname "$(readlink -f "$0")")

# A root partition that was made larger on the desktop (read_only_root/data_partition.sh); else nothing is to do.
[ -n "$root" ] || resize2fs "$(findmnt -no SOURCE /)" || true

(cd "$from" && sha256sum --check --quiet overlay.tar.sha256) # tar takes a file that was cut off for a shorter one
units=$root/etc/systemd/system
mkdir -p "$root/opt/.edge-vad-new" "$units/multi-user.target.wants" "$root/etc/systemd/system.conf.d"
tar -xf "$from/overlay.tar" -C "$root/opt/.edge-vad-new"
rm -rf "$root/opt/edge-vad-overlay" "$root/opt/edge-vad-overlay.installed" # of an overlay before this one
mv "$root/opt/.edge-vad-new/edge-vad-overlay" "$root/opt/edge-vad-overlay"
rmdir "$root/opt/.edge-vad-new"
cp "$from/watchdog.conf" "$root/etc/systemd/system.conf.d/edge-vad-watchdog.conf"
cp "$root/opt/edge-vad-overlay/systemd/edge-vad-install.service" "$units/"
ln -sf ../edge-vad-install.service "$units/multi-user.target.wants/"
sync
[ -z "$now" ] || { systemctl daemon-reload; systemctl start --no-block edge-vad-install.service; }
