#!/bin/sh
# sh firmware_examples/rauc/make-bundle.sh site.evb owner.pub cert.pem key.pem edge-vad-pi5 site-7.raucb
# Wraps a bundle that owner.pub verifies, with the hook beside this script, as a RAUC bundle for units of that `compatible`.
set -eu
bundle=$1 owner=$2 cert=$3 key=$4 compatible=$5 out=$6
edge-vad bundle verify "$bundle" --trusted "$owner"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cp "$bundle" "$folder/site.evb"
install -m 755 "$(dirname "$0")/hook.sh" "$folder/hook.sh"
sed -e "s/@COMPATIBLE@/$compatible/" -e "s/@VERSION@/$(basename "$out" .raucb)/" -e "s/@FORMAT@/${FORMAT:-verity}/" \
    "$(dirname "$0")/manifest.raucm.in" >"$folder/manifest.raucm"
rauc bundle --cert="$cert" --key="$key" "$folder" "$out"
