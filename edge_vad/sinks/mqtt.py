"""Records to an MQTT broker, with availability and Home Assistant discovery."""

from __future__ import annotations

import json
import os
import re
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote, urlsplit

from edge_vad.errors import OutputError, did_you_mean
from edge_vad.plugins import require
from edge_vad.record import Record
from edge_vad.sinks.base import Sink

TIMEOUT_S = 10.0  # for the connection and for each acknowledgement
KEEPALIVE_S = 30
OPTIONS = {"unit": "", "discovery": "homeassistant", "ca": ""}


@dataclass(frozen=True, slots=True)
class Broker:
    """Where records go, and under which names. password: as given, perhaps the name of a variable of the environment."""

    host: str
    port: int
    user: str
    password: str
    prefix: str
    unit: str
    discovery: str
    ca: str

    @property
    def shown(self) -> str:
        """For messages: without user and password."""
        return f"{self.host}:{self.port}"


class Mqtt(Sink):
    """``mqtt:[USER:PASSWORD@]HOST[:PORT][/PREFIX][?unit=NAME&discovery=TOPIC]``; the password may be ``$VARIABLE``.

    PREFIX/CAMERA/events   every record, QoS 1 (PREFIX/events for those of the whole unit)
    PREFIX/CAMERA/state    ON while an anomaly lasts, otherwise OFF; retained
    PREFIX/status          online or offline, retained; the broker itself says offline when the connection breaks

    Each camera is announced to Home Assistant with its first record (``discovery=`` switches that off).
    """

    remote: ClassVar[bool] = True
    tls: ClassVar[bool] = False

    def __init__(self, location: str) -> None:
        self._broker = _parse(location, 8883 if self.tls else 1883)
        self._mqtt: Any = require("paho.mqtt.client", "paho-mqtt>=2", "the sink mqtt")
        self._password = _secret(self._broker.password, self._broker.shown)
        self._tls = self._tls_context() if self.tls else None
        self._states: dict[str, str] = {}
        self._client: Any = None
        self._answered = threading.Event()
        self._refusal = ""

    def write(self, record: Record) -> None:
        if self._client is None or not self._client.is_connected():
            self._disconnect()
            self._connect()
        camera = _word(record.camera)
        where = [self._broker.prefix, *([camera] if camera else []), "events"]
        messages = [("/".join(where), record.line(), False)]
        if camera:
            messages += self._state_messages(camera, record)
        self._publish(messages)

    def close(self) -> None:
        if self._client is not None and self._client.is_connected():
            self._client.publish(f"{self._broker.prefix}/status", "offline", qos=1, retain=True).wait_for_publish(1.0)
        self._disconnect()

    def _connect(self) -> None:
        """One attempt; afterwards a thread of the library keeps the connection, and makes it again when it breaks."""
        name = self._broker.prefix.replace("/", "_")
        # A fixed name: the broker ends what is left of this unit's last connection, and says offline, before it is online.
        client = self._mqtt.Client(self._mqtt.CallbackAPIVersion.VERSION2, client_id=f"edge-vad-{name}")
        client.connect_timeout = TIMEOUT_S / 2
        client.reconnect_delay_set(1, 60)
        client.will_set(f"{self._broker.prefix}/status", "offline", qos=1, retain=True)
        if self._broker.user:
            client.username_pw_set(self._broker.user, self._password or None)
        if self._tls:
            client.tls_set_context(self._tls)
        client.on_connect = self._on_connect
        client.on_disconnect = self._on_disconnect
        self._answered.clear()
        self._refusal = ""
        try:
            client.connect(self._broker.host, self._broker.port, KEEPALIVE_S)
        except (OSError, ValueError) as error:
            raise self._error(f"cannot be reached: {_reason(error)}") from error
        self._client = client
        client.loop_start()
        if not self._answered.wait(TIMEOUT_S):
            self._refusal = "does not answer"
            self._answered.set()
        if self._refusal:
            self._disconnect()
            raise self._error(self._refusal)

    def _on_connect(self, client: Any, _: object, __: object, reason: Any, ___: object) -> None:
        """Also after the library has made a broken connection again: a broker may have forgotten what it retained."""
        if reason.is_failure:
            self._refusal = f"refuses the connection: {reason}"
        else:
            client.publish(f"{self._broker.prefix}/status", "online", qos=1, retain=True)
            for camera, state in dict(self._states).items():
                for topic, payload, retain in self._camera_messages(camera, state):
                    client.publish(topic, payload, qos=1, retain=retain)
        self._answered.set()

    def _on_disconnect(self, *_: object) -> None:
        if not self._answered.is_set():
            self._refusal = "closes the connection"
            self._answered.set()

    def _disconnect(self) -> None:
        """With all that the library still holds: what was not acknowledged is written again by the caller."""
        if self._client is not None:
            self._client.disconnect()
            self._client.loop_stop()
            self._client = None

    def _publish(self, messages: list[tuple[str, str, bool]]) -> None:
        until = time.monotonic() + TIMEOUT_S
        try:
            sent = [self._client.publish(topic, payload, qos=1, retain=retain) for topic, payload, retain in messages]
            for message in sent:
                message.wait_for_publish(max(0.0, until - time.monotonic()))
                if not message.is_published():
                    raise RuntimeError("no acknowledgement")
        except (RuntimeError, ValueError) as error:  # the library's own for a connection that is lost
            self._disconnect()
            raise self._error(f"did not take a record: {error}") from error

    def _state_messages(self, camera: str, record: Record) -> list[tuple[str, str, bool]]:
        """What is new about a camera: all of it with its first record, later only a state that changed."""
        known = self._states.get(camera)
        state = known or "OFF"
        if record.type == "anomaly":
            state = "OFF" if record.kind == "end" else "ON"
        self._states[camera] = state
        if known is None:
            return self._camera_messages(camera, state)
        return [(f"{self._broker.prefix}/{camera}/state", state, True)] if state != known else []

    def _camera_messages(self, camera: str, state: str) -> list[tuple[str, str, bool]]:
        prefix, unit = self._broker.prefix, self._broker.unit
        messages = [(f"{prefix}/{camera}/state", state, True)]
        if self._broker.discovery:
            sensor = {
                "name": f"{camera} anomaly",
                "unique_id": f"edge_vad_{unit}_{camera}",
                "device_class": "problem",
                "state_topic": f"{prefix}/{camera}/state",
                "availability_topic": f"{prefix}/status",
                "device": {"identifiers": [f"edge_vad_{unit}"], "name": unit, "manufacturer": "edge-vad"},
            }
            topic = f"{self._broker.discovery}/binary_sensor/{unit}_{camera}/config"
            messages.insert(0, (topic, json.dumps(sensor, sort_keys=True), True))
        return messages

    def _tls_context(self) -> ssl.SSLContext:
        try:
            return ssl.create_default_context(cafile=self._broker.ca or None)
        except OSError as error:
            raise self._error(f"the certificates {self._broker.ca} cannot be read: {_reason(error)}") from error

    def _error(self, what: str) -> OutputError:
        return OutputError(f"mqtt broker {self._broker.shown}: {what}")


def _parse(location: str, port: int) -> Broker:
    """Raises OutputError; no message shows what may be a password."""
    credentials, _, place = location.rpartition("@")
    user, _, password = credentials.partition(":")
    expected = "mqtt: expected [USER:PASSWORD@]HOST[:PORT][/PREFIX][?OPTION=VALUE], prefix without blanks, + and #"
    try:
        url = urlsplit(f"//{place}")
        host, port = url.hostname or "", url.port or port
        given = dict(parse_qsl(url.query, keep_blank_values=True, strict_parsing=bool(url.query)))
    except ValueError as error:
        raise OutputError(expected) from error
    prefix = url.path.strip("/") or "edge-vad"
    if not host or "#" in place or re.search(r"[+#\x00-\x20]", prefix + given.get("discovery", "")):
        raise OutputError(expected)
    for key in given:
        if key not in OPTIONS:
            raise OutputError(f"mqtt broker {host}:{port}: unknown option {key!r}{did_you_mean(key, OPTIONS)}")
    options = {**OPTIONS, **given}
    unit = _word(options["unit"] or prefix)
    discovery = options["discovery"].strip("/")
    return Broker(host, port, unquote(user), unquote(password), prefix, unit, discovery, options["ca"])


def _secret(text: str, shown: str) -> str:
    """The text itself, or the value of the variable that ``$NAME`` names."""
    if not text.startswith("$"):
        return text
    if text[1:] not in os.environ:
        raise OutputError(f"mqtt broker {shown}: the variable {text[1:]} for its password is not set")
    return os.environ[text[1:]]


def _word(text: str) -> str:
    """As a level of a topic and a part of an identifier."""
    return re.sub(r"[^A-Za-z0-9_-]", "_", text)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
