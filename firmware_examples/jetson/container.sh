#!/bin/sh
# The main process of edge-vad-container.service: runs the container, and tells systemd that it is alive for as long as the
# unit in it replaces its status file, which it does every two seconds from the loop that scores. A container cannot
# speak to systemd's watchdog itself: it is not among the processes of the service.
set -eu
name=edge-vad status=${STATUS:-/run/edge-vad} fresh_s=${FRESH_S:-15} every_s=${EVERY_S:-5}

docker run --rm --name "$name" --runtime nvidia --network "${NETWORK:-none}" --log-driver none --stop-timeout 10 \
    --mount type=bind,source=/tmp/argus_socket,target=/tmp/argus_socket \
    --volume "$status:/run/edge-vad" \
    --volume /var/lib/edge-vad:/var/lib/edge-vad \
    --volume /var/cache/edge-vad:/var/cache/edge-vad \
    "${IMAGE:-edge-vad}" &
container=$!
trap 'docker stop "$name"' TERM INT

state=--ready
while kill -0 "$container" 2>/dev/null; do
    if [ -n "$(find "$status" -name '*.json' -newermt "-$fresh_s seconds" 2>/dev/null)" ]; then
        systemd-notify $state WATCHDOG=1
        state=''
    fi
    sleep "$every_s" &
    wait $! || true
done
wait "$container"
