"""python firmware_examples/mqtt_home_assistant/announce.py broker.local site/gate-7 gate yard

Tells Home Assistant what the sink mqtt:broker.local/site/gate-7 does not announce by itself: for each camera the score of
the last event, and whether the camera sees anything. Once is enough, the broker keeps it. User and password: MQTT_USER and
MQTT_PASSWORD of the environment. With `--remove` as the last word they are taken away again.
"""

import json
import os
import sys

from paho.mqtt.publish import multiple

# Records of other types leave both as they are: Home Assistant ignores an empty text.
SCORE = "{{ value_json.peak_score if value_json.type == 'anomaly' else '' }}"
BLIND = (
    "{{ 'ON' if value_json.kind in ['lost', 'black', 'covered', 'frozen'] else "
    "'OFF' if value_json.kind in ['back', 'clear'] else '' }}"
)


def entities(prefix: str, camera: str) -> dict[str, dict[str, object]]:
    """Discovery topic (below the discovery prefix) to its message."""
    unit = prefix.replace("/", "_")  # the device that the sink announces, so that all stand on one page
    shared = {
        "state_topic": f"{prefix}/{camera}/events",
        "availability_topic": f"{prefix}/status",
        "device": {"identifiers": [f"edge_vad_{unit}"]},
    }
    score = {"name": f"{camera} score", "state_class": "measurement", "value_template": SCORE}
    blind = {"name": f"{camera} sees nothing", "device_class": "problem", "value_template": BLIND}
    return {
        f"sensor/{unit}_{camera}_score": {**shared, **score, "unique_id": f"edge_vad_{unit}_{camera}_score"},
        f"binary_sensor/{unit}_{camera}_blind": {**shared, **blind, "unique_id": f"edge_vad_{unit}_{camera}_blind"},
    }


def main(broker: str, prefix: str, *cameras: str) -> None:
    host, _, port = broker.partition(":")
    remove = cameras[-1:] == ("--remove",)
    messages = [
        (f"homeassistant/{topic}/config", "" if remove else json.dumps(message), 1, True)  # QoS 1, retained
        for camera in cameras[: -1 if remove else None]
        for topic, message in entities(prefix, camera).items()
    ]
    user = os.environ.get("MQTT_USER")
    login = {"username": user, "password": os.environ.get("MQTT_PASSWORD")} if user else None
    multiple(messages, hostname=host, port=int(port or 1883), auth=login)


if __name__ == "__main__":
    main(*sys.argv[1:])
