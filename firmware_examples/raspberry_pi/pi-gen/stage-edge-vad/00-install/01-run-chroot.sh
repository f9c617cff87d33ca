#!/bin/bash -e
sh /opt/edge-vad-overlay/install.sh
rm -rf /opt/edge-vad-overlay /opt/edge-vad-overlay.installed
