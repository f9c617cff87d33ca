#!/bin/sh
# sh firmware_examples/raspberry_pi/read_only_root/data_partition.sh CARD ROOT_MIB [DATA_MIB]
#
# After flashing and before the first boot: the root partition gets ROOT_MIB (8192 is plenty), and what is left of the
# card becomes the one partition that will be written. CARD: device (/dev/sdX, not mounted) or image file; an image is
# made DATA_MIB larger. Needs fdisk, e2fsprogs and mtools. first_boot.sh makes the root's file system fill its partition.
set -eu
PATH=$PATH:/usr/sbin:/sbin

die() { echo "data_partition: $*" >&2; exit 1; }
[ $# -ge 2 ] || die "usage: data_partition.sh CARD ROOT_MIB [DATA_MIB]"
card=$1 root_mib=$2 data_mib=${3:-}
[ -e "$card" ] || die "$card: no such device or image"
! grep -q "^$(readlink -f "$card")" /proc/mounts || die "$card: is mounted; unmount it"
field() { sfdisk --dump "$card" | sed -n "/start=/{s/.*$2= *\([0-9]*\).*/\1/p}" | sed -n "$1p"; }
[ "$(sfdisk --dump "$card" 2>/dev/null | grep -c start=)" = 2 ] || die "$card: not as flashed: two partitions are expected"
[ "$(field 2 size)" -le $((root_mib * 2048)) ] || die "$card: its root has $(($(field 2 size) / 2048)) MiB already: give more"
if [ -f "$card" ]; then
    [ -n "$data_mib" ] || die "$card: an image: how many MiB of data (DATA_MIB)?"
    truncate -s "$((($(field 2 start) / 2048 + root_mib + data_mib + 1) * 1048576))" "$card"
fi
echo ", ${root_mib}MiB" | sfdisk --quiet --no-reread --no-tell-kernel -N 2 "$card"
# Its start is said: of itself sfdisk takes the gap before the first partition.
echo "$(($(field 2 start) + $(field 2 size))), +, L" | sfdisk --quiet --no-reread --no-tell-kernel --append "$card"
mkfs.ext4 -q -F -L edge-vad-data -E "offset=$(($(field 3 start) * 512))" "$card" "$(($(field 3 size) / 2))k"

# What the system does at its first boot to fill the card: resize (trixie), init=...firstboot (bookworm).
fat="$card@@$(($(field 1 start) * 512))" work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mcopy -n -i "$fat" ::cmdline.txt "$work/cmdline.txt"
sed -i 's,\(^\| \)resize\( \|$\),\1\2,; s, *init=/usr/lib/raspberrypi-sys-mods/firstboot,,' "$work/cmdline.txt"
mcopy -o -i "$fat" "$work/cmdline.txt" ::cmdline.txt
sync
echo "$card: root ${root_mib} MiB, edge-vad-data $(($(field 3 size) / 2048)) MiB"
