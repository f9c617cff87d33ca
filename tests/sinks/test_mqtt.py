"""The MQTT sink against a real broker that is started, stopped and refuses."""

from __future__ import annotations

import gc
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_vad.delivery import Delivery
from edge_vad.errors import OutputError
from edge_vad.eventlog import EventLog
from edge_vad.record import Record
from edge_vad.sinks import mqtt as module
from edge_vad.sinks.mqtt import Mqtt
from edge_vad.sinks.mqtts import Mqtts

MOSQUITTO = shutil.which("mosquitto")
if MOSQUITTO is None:
    pytest.skip("there is no MQTT broker here: apt-get install mosquitto", allow_module_level=True)
paho = pytest.importorskip("paho.mqtt.client", reason="pip install 'paho-mqtt>=2'")

WAIT_S = 15.0


def record(seq: int, type: Any = "anomaly", kind: str = "start", camera: str = "gate", **data: Any) -> Record:
    return Record(seq, "boot", seq / 10, "2026-01-01T00:00:00.000Z", camera, type, kind, data)


def until(holds: Callable[[], Any], what: str) -> None:
    give_up = time.monotonic() + WAIT_S
    while not holds():
        assert time.monotonic() < give_up, f"not within {WAIT_S} s: {what}"
        time.sleep(0.02)


class Broker:
    """A mosquitto of our own on a free port."""

    def __init__(self, folder: Path, *lines: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self._config = folder / "mosquitto.conf"
        user = ["user root"] if os.getuid() == 0 else []
        default = [] if any("password_file" in line for line in lines) else ["allow_anonymous true"]
        self._config.write_text("\n".join([*user, f"listener {self.port} 127.0.0.1", *default, *lines, ""]))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> Broker:
        arguments = [str(MOSQUITTO), "-c", str(self._config)]
        self._process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(self._listens, "the broker listens")
        return self

    def stop(self) -> None:
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), 1).close()
        except OSError:
            return False
        return True


class Listener:
    """A subscriber that keeps all messages: (topic, payload, retained)."""

    def __init__(self, broker: Broker, user: str = "", password: str = "") -> None:
        self.messages: list[tuple[str, str, bool]] = []
        self.subscribed = False
        self._client = paho.Client(paho.CallbackAPIVersion.VERSION2)
        if user:
            self._client.username_pw_set(user, password)
        self._client.on_connect = lambda client, *_: client.subscribe("#", 1)
        self._client.on_subscribe = lambda *_: setattr(self, "subscribed", True)
        self._client.on_message = self._take
        self._client.connect("127.0.0.1", broker.port)
        self._client.loop_start()
        until(lambda: self.subscribed, "the listener has subscribed")

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _take(self, client: object, data: object, message: Any) -> None:
        self.messages.append((message.topic, message.payload.decode(), bool(message.retain)))

    def payloads(self, topic: str) -> list[str]:
        return [payload for found, payload, _ in self.messages if found == topic]

    def seqs(self, topic: str = "site/gate/events") -> list[int]:
        return [json.loads(payload)["seq"] for payload in self.payloads(topic)]

    def waits_for(self, topic: str, payloads: list[str]) -> None:
        until(lambda: self.payloads(topic) == payloads, f"{topic} {payloads}, not {self.payloads(topic)}")


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path).start()
    yield broker
    broker.stop()


def test_records_states_and_discovery_arrive(broker: Broker) -> None:
    with Listener(broker) as listener:
        records = [
            record(1, "unit", "started", camera=""),
            record(2, "view", "black"),
            record(3, score=1.5),
            record(4, kind="update"),
            record(5, kind="end"),
            record(6, camera="door"),
        ]
        with Mqtt(f"127.0.0.1:{broker.port}/site/one") as sink:
            for taken in records:
                sink.write(taken)
            until(lambda: len(listener.payloads("site/one/door/events")) == 1, "the last record")
            listener.waits_for("site/one/status", ["online"])
        listener.waits_for("site/one/status", ["online", "offline"])
        gate = [json.loads(payload) for payload in listener.payloads("site/one/gate/events")]
        assert [Record.parse(plain) for plain in gate] == records[1:5]
        assert [json.loads(p)["kind"] for p in listener.payloads("site/one/events")] == ["started"]
        assert listener.payloads("site/one/gate/state") == ["OFF", "ON", "OFF"]
        assert listener.payloads("site/one/door/state") == ["ON"]
        [discovered] = listener.payloads("homeassistant/binary_sensor/site_one_gate/config")
        assert json.loads(discovered) == {
            "name": "gate anomaly",
            "unique_id": "edge_vad_site_one_gate",
            "device_class": "problem",
            "state_topic": "site/one/gate/state",
            "availability_topic": "site/one/status",
            "device": {"identifiers": ["edge_vad_site_one"], "name": "site_one", "manufacturer": "edge-vad"},
        }
    with Listener(broker) as late:
        late.waits_for("site/one/status", ["offline"])
        retained = {topic for topic, _, kept in late.messages if kept}
        assert {"site/one/gate/state", "site/one/door/state", "homeassistant/binary_sensor/site_one_door/config"} <= retained
        assert not any(topic.endswith("events") for topic in retained)


def test_the_unit_can_be_named_and_discovery_switched_off(broker: Broker) -> None:
    with Listener(broker) as listener:
        with Mqtt(f"127.0.0.1:{broker.port}/a?unit=north&discovery=ha/test") as sink:
            sink.write(record(1))
        with Mqtt(f"127.0.0.1:{broker.port}/b?discovery=") as sink:
            sink.write(record(2, camera="a/b+#"))
        listener.waits_for("b/status", ["online", "offline"])
        topics = {topic for topic, _, _ in listener.messages}
        assert topics == {"ha/test/binary_sensor/north_gate/config", "a/gate/events", "a/gate/state", "a/status"} | {
            "b/a_b__/events", "b/a_b__/state", "b/status",
        }  # fmt: skip


CHILD = """
import sys, time
from pathlib import Path
from edge_vad.delivery import Delivery
from edge_vad.eventlog import EventLog
from edge_vad.record import Recorder
folder, sink, n = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
log = EventLog(folder)
recorder = Recorder(log.last_seq)
delivery = Delivery([sink], log)
for _ in range(n):
    record = recorder.record("gate", "anomaly", "start")
    delivery.write(record)
    print(record.seq, flush=True)
print("written", flush=True)
time.sleep(60)
"""


def child(folder: Path, sink: str, n: int) -> tuple[subprocess.Popen[str], list[int]]:
    """A process that has written ``n`` records and goes on delivering; and their numbers."""
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), sink, str(n)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    lines = []
    while (line := process.stdout.readline().strip()) != "written":
        assert line, "the process ended early"
        lines.append(int(line))
    return process, lines


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def test_the_broker_says_offline_when_the_process_is_killed(broker: Broker, tmp_path: Path) -> None:
    with Listener(broker) as listener:
        process, _ = child(tmp_path / "log", f"mqtt:127.0.0.1:{broker.port}/site", 1)
        listener.waits_for("site/status", ["online"])
        kill(process)
        listener.waits_for("site/status", ["online", "offline"])


def test_what_is_written_while_the_broker_is_away_arrives_later_in_order(broker: Broker, tmp_path: Path) -> None:
    log = EventLog(tmp_path / "log")
    delivery = Delivery([f"mqtt:127.0.0.1:{broker.port}/site"], log)
    with Listener(broker) as listener:
        delivery.write(record(1))
        until(lambda: listener.seqs() == [1], "the first record")
    broker.stop()
    slowest = 0.0
    for seq in range(2, 52):
        start = time.monotonic()
        delivery.write(record(seq, kind="update"))
        slowest = max(slowest, time.monotonic() - start)
    assert slowest < 0.5
    [status] = [value for name, value in delivery.status().items() if name.startswith("mqtt")]
    assert status["pending"] == 50 and status["lost"] == 0
    broker.start()
    with Listener(broker) as listener:
        until(lambda: len(set(listener.seqs())) == 50, "all records")
        assert sorted(set(listener.seqs())) == list(range(2, 52)) and listener.seqs() == sorted(listener.seqs())
        listener.waits_for("site/status", ["online"])  # and all of it that the broker forgot
        assert listener.payloads("homeassistant/binary_sensor/site_gate/config")
        delivery.close()
        listener.waits_for("site/status", ["online", "offline"])
    log.close()


def test_a_killed_process_loses_nothing_that_it_had_accepted(broker: Broker, tmp_path: Path) -> None:
    sink = f"mqtt:127.0.0.1:{broker.port}/site"
    with Listener(broker) as listener:
        process, accepted = child(tmp_path / "log", sink, 20)
        kill(process)  # perhaps in the middle of its deliveries
        arrived = set(listener.seqs())
    broker.stop()
    process, more = child(tmp_path / "log", sink, 20)
    kill(process)
    broker.start()
    with Listener(broker) as listener:
        process, last = child(tmp_path / "log", sink, 1)
        accepted += more + last
        until(lambda: set(listener.seqs()) | arrived >= set(accepted), "all records")
        kill(process)
        assert accepted == list(range(1, 42))
        assert listener.seqs() == sorted(listener.seqs())


@pytest.fixture
def strict_broker(tmp_path: Path) -> Iterator[Broker]:
    passwords = tmp_path / "passwords"
    subprocess.run(["mosquitto_passwd", "-b", "-c", passwords, "unit", "p@ss/w:rd"], check=True, capture_output=True)
    broker = Broker(tmp_path, f"password_file {passwords}").start()
    yield broker
    broker.stop()


def test_a_wrong_password_is_one_clear_error_without_it(
    strict_broker: Broker, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    place = f"127.0.0.1:{strict_broker.port}"
    for credentials in ("unit:hunter2@", "nobody:hunter2@", ""):
        sink = Mqtt(f"{credentials}{place}/site")
        for _ in range(2):
            with pytest.raises(OutputError, match=f"^mqtt broker {place}: refuses the connection: Not authorized$"):
                sink.write(record(1))
        sink.close()
    delivery = Delivery([f"mqtt:unit:hunter2@{place}/site"])
    delivery.write(record(1))
    until(lambda: caplog.records, "it is logged")
    time.sleep(1.5)  # it is tried again by now
    delivery.close()
    [told] = caplog.records
    assert "Not authorized; 1 records wait" in told.getMessage() and "hunter2" not in caplog.text
    assert "hunter2" not in json.dumps(delivery.status())


def test_the_right_password_is_accepted_also_from_the_environment(
    strict_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = f"127.0.0.1:{strict_broker.port}/site"
    monkeypatch.setenv("UNIT_PASSWORD", "p@ss/w:rd")
    with Listener(strict_broker, "unit", "p@ss/w:rd") as listener:
        for seq, password in enumerate(("p@ss/w:rd", "p%40ss%2Fw%3Ard", "$UNIT_PASSWORD"), 1):
            with Mqtt(f"unit:{password}@{place}") as sink:
                sink.write(record(seq))
        until(lambda: listener.seqs() == [1, 2, 3], "the records")
    with pytest.raises(OutputError, match="the variable NO_SUCH for its password is not set"):
        Mqtt(f"unit:$NO_SUCH@{place}")


def test_a_broker_that_never_acknowledges_is_an_output_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TIMEOUT_S", 0.4)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        sink = Mqtt(f"127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(OutputError, match="does not answer"):
            sink.write(record(1))
        taken, _ = silent.accept()
        with taken:
            sink.close()

    def half(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1000)
            connection.sendall(b"\x20\x02\x00\x00")  # accepts the connection, and nothing after it
            while connection.recv(1000):
                pass

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=half, args=(server,))
        thread.start()
        sink = Mqtt(f"127.0.0.1:{server.getsockname()[1]}")
        with pytest.raises(OutputError, match="did not take a record: no acknowledgement"):
            sink.write(record(1))
        sink.close()
        thread.join()


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # the library leaves a refused socket to the gc
def test_tls_checks_the_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl to make a certificate")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*make, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    broker = Broker(tmp_path, f"certfile {certificate}", f"keyfile {key}")
    broker.start()
    place = f"127.0.0.1:{broker.port}/site"
    try:
        with Mqtts(place) as unknown, pytest.raises(OutputError, match="cannot be reached: .*certificate"):
            unknown.write(record(1))
        with Mqtts(f"{place}?ca={certificate}") as sink:
            sink.write(record(2))
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))  # as one of the system's own
        with Mqtts(place) as sink:
            sink.write(record(3))
        with Mqtt(place) as plain, pytest.raises(OutputError, match="closes the connection"):
            plain.write(record(4))
        with pytest.raises(OutputError, match=r"nothing\.pem cannot be read: No such file"):
            Mqtts(f"{place}?ca={tmp_path}/nothing.pem")
    finally:
        broker.stop()
    del unknown
    gc.collect()  # here, and not during another test


@pytest.mark.parametrize(
    "location", ["", "/site", "host:port/site", "host/a b", "host/a/#", "host/+", "u:p@", "host/x?unit"]
)
def test_locations_that_are_none_are_refused(location: str) -> None:
    with pytest.raises(OutputError, match="mqtt: expected"):
        Mqtt(location)
