#!/bin/bash -e
# On the machine that builds the image. EDGE_VAD_OVERLAY: exported in the config of pi-gen.
: "${EDGE_VAD_OVERLAY:?export it in the config of pi-gen: the path of overlay.tar}"
examples=$(readlink -f ../../..)
rm -rf "${ROOTFS_DIR}/opt/edge-vad-overlay"
mkdir -p "${ROOTFS_DIR}/opt"
tar -xf "${EDGE_VAD_OVERLAY}" -C "${ROOTFS_DIR}/opt"
install -D -m 644 "${examples}/watchdog.conf" "${ROOTFS_DIR}/etc/systemd/system.conf.d/edge-vad-watchdog.conf"
config="${ROOTFS_DIR}/boot/firmware/config.txt"
grep -q '^dtparam=watchdog=on' "${config}" || printf '\n[all]\ndtparam=watchdog=on\n' >>"${config}"
