#!/bin/sh
# sh firmware_examples/mender/make-artifact.sh site.evb owner.pub raspberrypi5 site-7.mender [--key mender.key]
# Wraps a bundle that owner.pub verifies; the rest of the line goes to mender-artifact, such as the key that signs the artifact.
set -eu
bundle=$1 owner=$2 device_type=$3 out=$4
shift 4
edge-vad bundle verify "$bundle" --trusted "$owner"
mender-artifact write module-image --type edge-vad-bundle --artifact-name "$(basename "$out" .mender)" \
    --device-type "$device_type" --software-filesystem data-partition --software-name edge-vad-bundle \
    --file "$bundle" --output-path "$out" "$@"
