"""Records to an MQTT broker over TLS."""

from __future__ import annotations

from typing import ClassVar

from edge_vad.sinks.base import Sink
from edge_vad.sinks.mqtt import Mqtt


class Mqtts(Mqtt, Sink):
    """As ``mqtt:``, but over TLS, port 8883: the broker's certificate must fit its name and the system's authorities.

    ``?ca=FILE`` names an authority of your own.
    """

    tls: ClassVar[bool] = True
