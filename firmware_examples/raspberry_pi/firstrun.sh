#!/bin/sh
# Raspberry Pi OS bookworm, the first boot: named by systemd.run= on the kernel command line (prepare_card.sh). Whatever
# comes of it, the unit starts as usual afterwards, and can be reached.
boot=${1:-/boot/firmware} root=${2:-}
sh "$boot/edge-vad/first_boot.sh" ${root:+"$root"} >"$boot/edge-vad/first_boot.log" 2>&1
sed -i 's, systemd\.\(run\|run_success_action\|unit\)=[^ ]*,,g' "$boot/cmdline.txt"
rm -f "$boot/firstrun.sh"
sync
exit 0
