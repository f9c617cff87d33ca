"""The virtual machine: qemu without KVM, a console that is kept, commands and a stream of lines over virtio ports."""

from __future__ import annotations

import json
import queue
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from disk import Disk, Kept
from image import Image

BOOT_S = 900.0
COMMAND_S = 900.0
KERNEL = "root=/dev/vda rw console=ttyS0 mitigations=off quiet systemd.show_status=false"


@dataclass
class Lines:
    """What came over a port, a line at a time, each with when it came (seconds of ``time.monotonic()``)."""

    received: list[tuple[float, str]] = field(default_factory=list)
    fresh: queue.Queue[str] = field(default_factory=queue.Queue)

    def follow(self, port: socket.socket) -> None:
        """Read until the other side is gone; only whole lines count."""
        with suppress(OSError), port.makefile("rb") as stream:
            for line in stream:
                if line.endswith(b"\n"):
                    text = line.decode(errors="replace").strip()
                    self.received.append((time.monotonic(), text))
                    self.fresh.put(text)


class Machine:
    """One run of the machine, from its start until its power is cut or it is shut down."""

    def __init__(self, image: Image, disk: Disk, folder: Path, files: Sequence[Path] = (), memory_mb: int = 1536) -> None:
        """files: are handed over as further disks, /dev/vdb and so on, written through."""
        self._disk, self._console = disk, folder / "console.log"
        self._answers, self.events = Lines(), Lines()
        self._sockets: list[socket.socket] = []
        self._readers: list[threading.Thread] = []
        self.started = time.monotonic()
        # No default devices: their drivers cost seconds of a boot. Leave "max" whole: with svm=off (qemu 7.2, Linux 6.12)
        # the paths in /proc/mounts are x's, and no service with a namespace of its own starts.
        command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", f"{memory_mb}"]
        command += ["-nodefaults", "-display", "none", "-no-reboot", "-kernel", str(image.kernel)]
        command += ["-initrd", str(image.initrd), "-append", KERNEL]
        command += ["-serial", f"file:{self._console}", "-device", "virtio-serial-pci", "-device", "virtio-rng-pci"]
        command += [*disk.begin(), *self._ports(folder, "commands", "events")]
        for number, path in enumerate(files):
            command += [
                "-drive",
                f"file={path},format=raw,if=none,id=file{number}",
                "-device",
                f"virtio-blk-pci,drive=file{number}",
            ]
        self._process = subprocess.Popen(["nice", "-n", "19", *command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE)
        for name, lines in (("commands", self._answers), ("events", self.events)):
            self._connect(folder / name, lines)
        self.boot_id = json.loads(self._answer(BOOT_S))["boot"]
        self.boot_s = time.monotonic() - self.started

    def run(self, command: str, timeout_s: float = COMMAND_S) -> tuple[int, str]:
        """A shell command as root: its exit code, and what it said."""
        self.send(command)
        answer = json.loads(self._answer(timeout_s))
        return int(answer["code"]), str(answer["out"])

    def must(self, command: str, timeout_s: float = COMMAND_S) -> str:
        """What a command says that has to work."""
        code, out = self.run(command, timeout_s)
        assert code == 0, f"{command}: exit code {code}\n{out}"
        return out

    def send(self, command: str) -> None:
        """Begin a command without waiting for its end."""
        self._sockets[0].sendall(json.dumps({"run": command}).encode() + b"\n")

    def wait(self, command: str, timeout_s: float = COMMAND_S, every_s: float = 1.0) -> float:
        """Seconds until a command first says yes (exit code 0)."""
        began = time.monotonic()
        while self.run(command)[0]:
            assert time.monotonic() - began < timeout_s, f"{command}: not within {timeout_s:.0f} s"
            time.sleep(every_s)
        return time.monotonic() - began

    def records(self) -> list[dict[str, Any]]:
        """The records that have come over the events port up to now."""
        return [json.loads(text) for _, text in list(self.events.received) if text.startswith("{")]

    def cut(self) -> Kept:
        """The power goes."""
        self._process.send_signal(signal.SIGKILL)
        return self._gone()

    def shut_down(self, timeout_s: float = 120.0) -> Kept:
        """The way that is polite."""
        self.send("systemctl poweroff")
        self._process.wait(timeout_s)
        return self._gone()

    def close(self) -> None:
        """End it where a test has failed."""
        if self._process.poll() is None:
            self.cut()

    def _gone(self) -> Kept:
        self._process.wait()
        for reader in self._readers:  # what qemu had handed over before it ended still comes
            reader.join(10)
        for port in self._sockets:
            port.close()
        if self._process.stderr:
            self._process.stderr.close()
        return self._disk.end()

    def _ports(self, folder: Path, *names: str) -> Iterator[str]:
        for name in names:
            (folder / name).unlink(missing_ok=True)
            yield from ("-chardev", f"socket,id={name},path={folder / name},server=on,wait=off")
            yield from ("-device", f"virtserialport,chardev={name},name=vm.{name}")

    def _connect(self, path: Path, lines: Lines) -> None:
        while not path.exists():
            assert self._process.poll() is None, self._process.stderr.read().decode() if self._process.stderr else ""
            time.sleep(0.1)
        port = socket.socket(socket.AF_UNIX)
        port.connect(str(path))
        self._sockets.append(port)
        self._readers.append(threading.Thread(target=lines.follow, args=(port,), daemon=True))
        self._readers[-1].start()

    def _answer(self, timeout_s: float) -> str:
        try:
            return self._answers.fresh.get(timeout=timeout_s)
        except queue.Empty:
            tail = self._console.read_text(errors="replace")[-2000:] if self._console.exists() else ""
            raise TimeoutError(f"the machine has not answered for {timeout_s:.0f} s; its console:\n{tail}") from None
