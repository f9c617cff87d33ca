#!/bin/sh
# Build a Debian root in which the real picamera2 runs on libcamera's virtual camera, for test_picamera2.py.
#
#   sudo apt-get install --no-install-recommends mmdebstrap
#   sudo tests/cameras/make_virtual_root.sh /var/tmp/picamera2_root        # 1 to 3 minutes, 0.9 GB, from the network
#   sudo EDGE_VAD_PICAMERA2_ROOT=/var/tmp/picamera2_root .venv/bin/python -m pytest tests/cameras/test_picamera2.py
#
# Debian 13 is the first release whose libcamera has Python bindings and the virtual camera. It has no picamera2: that
# comes from PyPI, as do ONNX Runtime, OpenCV and safetensors, so that the frames can be scored too; NumPy is Debian's.
set -eu

MIRROR="${DEBIAN_MIRROR:-http://deb.debian.org/debian}"
CERTIFICATES=/etc/ssl/certs/ca-certificates.crt

[ $# -eq 1 ] || { echo "usage: $0 FOLDER" >&2; exit 2; }
[ "$(id -u)" -eq 0 ] || { echo "$0: must run as root (it unpacks a Debian system)" >&2; exit 1; }
command -v mmdebstrap >/dev/null || { echo "$0: mmdebstrap is missing: apt-get install mmdebstrap" >&2; exit 1; }
[ ! -e "$1" ] || { echo "$0: $1 exists already; remove it first" >&2; exit 1; }

# gcc and the headers: python-prctl and PiDNG, which picamera2 needs, are on PyPI as source only.
mmdebstrap --variant=minbase --format=directory \
    --include=ca-certificates,libcamera-ipa,python3-libcamera,python3-numpy,python3-venv,python3-yaml \
    --include=gcc,libc6-dev,libcap-dev,python3-dev \
    trixie "$1" "$MIRROR"

cp /etc/resolv.conf "$1/etc/resolv.conf"
[ ! -e "$CERTIFICATES" ] || cp "$CERTIFICATES" "$1$CERTIFICATES"
chroot "$1" python3 -m venv --system-site-packages /opt/venv
chroot "$1" /opt/venv/bin/pip install --no-cache-dir --quiet \
    picamera2==0.3.38 onnxruntime opencv-python-headless safetensors
rm -rf "$1"/var/cache/apt/archives/*.deb "$1"/var/lib/apt/lists/*

# Where the test mounts this repository, the footage, and the description of the virtual camera, which Debian lacks.
mkdir -p "$1/opt/edge-vad" "$1/opt/clip" "$1/usr/share/libcamera/pipeline/virtual"
: > "$1/usr/share/libcamera/pipeline/virtual/virtual.yaml"
echo "$1 is ready: EDGE_VAD_PICAMERA2_ROOT=$1"
