#!/bin/sh
# sh firmware_examples/raspberry_pi/prepare_card.sh overlay.tar CARD [--user-data FILE] [--network-config FILE]
#
# Lays an overlay onto a flashed card, so that its first boot installs it without a network. CARD: the mounted boot
# partition (a folder with cmdline.txt), the card's device (/dev/sdX, not mounted) or an image file; the last two need
# mtools. Images with cloud-init (trixie) are told by vendor-data, others (bookworm) by the kernel command line.
set -eu

die() { echo "prepare_card: $*" >&2; exit 1; }
here=$(dirname "$(readlink -f "$0")")
[ $# -ge 2 ] || die "usage: prepare_card.sh overlay.tar CARD [--user-data FILE] [--network-config FILE]"
overlay=$1 card=$2 user_data='' network_config=''
shift 2
while [ $# -gt 0 ]; do
    [ $# -ge 2 ] || die "$1: give a file"
    case $1 in
        --user-data) user_data=$2 ;;
        --network-config) network_config=$2 ;;
        *) die "$1: no such option" ;;
    esac
    shift 2
done

tar -tf "$overlay" edge-vad-overlay/install.sh edge-vad-overlay/systemd/edge-vad-install.service >/dev/null 2>&1 ||
    die "$overlay: not an overlay of edge-vad provision"
for file in $user_data $network_config; do
    [ -f "$file" ] || die "$file: no such file"
    ! grep -q REPLACE_ME "$file" || die "$file: write your own value where REPLACE_ME stands"
done

if [ -d "$card" ]; then
    get() { cp "$card/$1" "$2" 2>/dev/null; }
    put() { cp "$1" "$card/$2"; }
    folder() { mkdir -p "$card/$1"; }
elif [ -e "$card" ]; then
    ! grep -q "^$(readlink -f "$card")" /proc/mounts || die "$card: is mounted; unmount it, or name the mounted folder"
    start=$(partx --show --noheadings --nr 1 --output START "$card" 2>/dev/null | tr -d " ") || true
    [ -n "$start" ] || die "$card: no partition table; flash the system's image first"
    fat="$card@@$((start * 512))"
    get() { mcopy -n -i "$fat" "::$1" "$2" 2>/dev/null; }
    put() { mcopy -o -i "$fat" "$1" "::$2"; }
    folder() { mdir -i "$fat" "::$1" >/dev/null 2>&1 || mmd -i "$fat" "::$1"; }
else
    die "$card: no such folder, device or image"
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for file in cmdline.txt config.txt; do
    get $file "$work/$file" || die "$card: has no $file: not the boot partition of Raspberry Pi OS"
done

# What is long comes first, and what has it found at the boot last: a card that was pulled out early boots as before.
folder edge-vad
put "$overlay" edge-vad/overlay.tar
get edge-vad/overlay.tar "$work/overlay.tar" || true
cmp -s "$work/overlay.tar" "$overlay" || die "$card: did not keep the overlay"
echo "$(sha256sum <"$overlay" | cut -c1-64)  overlay.tar" >"$work/overlay.tar.sha256"
put "$work/overlay.tar.sha256" edge-vad/overlay.tar.sha256
put "$here/first_boot.sh" edge-vad/first_boot.sh
put "$here/watchdog.conf" edge-vad/watchdog.conf
grep -q '^dtparam=watchdog=on' "$work/config.txt" || {
    printf '\n[all]\ndtparam=watchdog=on\n' >>"$work/config.txt"
    put "$work/config.txt" config.txt
}

if get meta-data "$work/meta-data"; then
    ! get vendor-data "$work/vendor-data" || cmp -s "$work/vendor-data" "$here/cloud-init/vendor-data" ||
        die "$card: has a vendor-data already; call edge-vad/first_boot.sh --now from it"
    [ -z "$user_data" ] || put "$user_data" user-data
    [ -z "$network_config" ] || put "$network_config" network-config
    put "$here/cloud-init/vendor-data" vendor-data
    how="cloud-init"
else
    [ -z "$user_data$network_config" ] || die "$card: has no cloud-init; name and network are set by Raspberry Pi Imager here"
    if get firstrun.sh "$work/firstrun.sh"; then # of Raspberry Pi Imager, which names it on the kernel command line
        grep -q edge-vad/first_boot.sh "$work/firstrun.sh" ||
            sed -i '1a sh /boot/firmware/edge-vad/first_boot.sh >/boot/firmware/edge-vad/first_boot.log 2>&1' "$work/firstrun.sh"
        put "$work/firstrun.sh" firstrun.sh
    else
        put "$here/firstrun.sh" firstrun.sh
    fi
    grep -q systemd.run= "$work/cmdline.txt" || {
        run="systemd.run=/boot/firmware/firstrun.sh systemd.run_success_action=reboot systemd.unit=kernel-command-line.target"
        printf '%s %s\n' "$(tr -d '\r\n' <"$work/cmdline.txt")" "$run" >"$work/cmdline.new"
        put "$work/cmdline.new" cmdline.txt
    }
    how="firstrun.sh"
fi
sync
echo "$card: installs $(basename "$overlay") at its first boot, by $how"
