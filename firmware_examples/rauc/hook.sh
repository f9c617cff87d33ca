#!/bin/sh
# Travels in the RAUC bundle: RAUC calls `hook.sh slot-install` in the place of writing an image.
# Installs, activates, waits until the unit has confirmed, and returns to the bundle before it where it does not.
set -eu
[ "$1" = slot-install ] || exit 0
. "${EDGE_VAD_UPDATE_CONF:-/etc/edge-vad/update.conf}" # STORE, OPTIONS, SERVICE, HEALTH_S, EDGE_VAD

store() {
    action=$1
    shift
    # shellcheck disable=SC2086 # several words
    $EDGE_VAD store "$action" "$@" --store "$STORE" $OPTIONS
    chown -R "$(stat -c %u:%g "$STORE")" "$STORE/." # the service's user owns what root adds
}

# The id that a link of the store names (docs/store.md, Layout); "none" where there is none.
linked() { basename "$(readlink "$STORE/state/$1" || echo none)"; }

# The unit itself ends the trial, after store.confirm_s seconds of scored frames.
confirmed() {
    while [ "$HEALTH_S" -gt 0 ] && [ "$(linked current)" = "$1" ]; do
        [ -e "$STORE/state/trial.json" ] || return 0
        sleep 1
        HEALTH_S=$((HEALTH_S - 1))
    done
    return 1
}

before=$(linked current)
store install "$RAUC_IMAGE_NAME"
new=$(linked candidate)
if [ "$new" != "$before" ]; then
    store activate "$new"
    systemctl restart "$SERVICE" && confirmed "$new" && exit 0
elif confirmed "$new"; then
    exit 0
fi
echo "bundle $new was not confirmed by the unit; see: edge-vad status, edge-vad store list" >&2
if [ "$new" != "$before" ] && [ "$(linked current)" = "$new" ]; then
    store rollback && systemctl restart "$SERVICE"
fi
exit 1
