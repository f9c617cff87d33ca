#!/bin/sh
# sudo sh firmware_examples/raspberry_pi/read_only_root/seal.sh [ROOT] && sudo reboot
#
# On a unit with the partition of data_partition.sh, once edge-vad is installed: from the next boot on the root is
# read-only. ROOT: another root than /, with its data partition at ROOT/data. Running it again completes it.
set -eu

die() { echo "seal: $*" >&2; exit 1; }
here=$(dirname "$(readlink -f "$0")") root=${1:-}
if [ -z "$root" ]; then
    [ "$(id -u)" = 0 ] || die "only root may: sudo"
    mkdir -p /data
    mountpoint -q /data || mount LABEL=edge-vad-data /data || die "no partition edge-vad-data: see data_partition.sh"
    systemctl stop 'edge-vad*.service'
fi
grep -q '^[^#[:space:]]*[[:space:]]*/[[:space:]]' "$root/etc/fstab" || die "$root/etc/fstab: has no line for /"

# keep FOLDER NAME: its files to the data partition. The copy gets its name when it is complete.
keep() {
    mkdir -p "$1"
    [ ! -d "$root/data/$2" ] || return 0
    rm -rf "$root/data/.$2"
    cp -a "$1" "$root/data/.$2"
    sync
    mv "$root/data/.$2" "$root/data/$2"
}
# A service with DynamicUser has its folders below private/ and a link to them; systemd makes neither on a read-only root.
for place in lib:state cache:cache; do
    parent=$root/var/${place%%:*}
    mkdir -p "$parent/private"
    chmod 700 "$parent/private"
    [ -L "$parent/edge-vad" ] || [ ! -d "$parent/edge-vad" ] || mv "$parent/edge-vad" "$parent/private/"
    keep "$parent/private/edge-vad" "${place##*:}"
    ln -sfn private/edge-vad "$parent/edge-vad"
done
keep "$root/etc/edge-vad" etc
keep "$root/opt/edge-vad" opt
keep "$root/var/lib/systemd/timesync" timesync
keep "$root/var/lib/NetworkManager" NetworkManager

units=$root/etc/systemd/system
install -D -m 644 "$here/journald.conf" "$root/etc/systemd/journald.conf.d/edge-vad.conf"
install -D -m 644 "$here/../watchdog.conf" "$root/etc/systemd/system.conf.d/edge-vad-watchdog.conf"
for name in edge-vad.service edge-vad-.service; do
    install -D -m 644 "$here/mounts.conf" "$units/$name.d/mounts.conf"
done
# What writes to the root: package lists, swap files, the random seed (the board has a generator), first-boot work.
for name in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer man-db.timer logrotate.timer e2scrub_all.timer \
    systemd-random-seed.service dphys-swapfile.service rpi-resize-swap-file.service fake-hwclock.service \
    fake-hwclock-save.timer; do
    ln -sf /dev/null "$units/$name"
done
if [ -d "$root/etc/rpi" ]; then # trixie: swap in compressed memory, not in a file
    mkdir -p "$root/etc/rpi/swap.conf.d"
    printf '[Main]\nMechanism=zram\n' >"$root/etc/rpi/swap.conf.d/90-edge-vad.conf"
fi
[ ! -d "$root/etc/cloud" ] || touch "$root/etc/cloud/cloud-init.disabled"
[ -L "$root/etc/resolv.conf" ] || ln -sf /run/NetworkManager/resolv.conf "$root/etc/resolv.conf"

# Last, and at once: fstab. The system's own lines stay, read-only.
awk '/^# edge-vad: the one partition/ { exit }
     /^[^#]/ && ($2 == "/" || $2 == "/boot/firmware" || $2 == "/boot") { $4 = "ro,noatime" }
     { print }' "$root/etc/fstab" >"$root/etc/fstab.new"
cat "$here/fstab" >>"$root/etc/fstab.new"
sync
mv "$root/etc/fstab.new" "$root/etc/fstab"
sync
echo "read-only from the next boot on: reboot"
