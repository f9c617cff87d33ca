"""The container of a bundle: a ZIP with stored members in one canonical form.

Any unzip program opens it. Reading accepts exactly the bytes that writing gives: no compression, no comments, no
duplicate or hidden members, no other dates. One file content therefore has one set of bytes, and every other byte
sequence is refused before anything looks at a member.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Mapping

from edge_vad.errors import BundleFormatError

MAX_MEMBERS = 64
MAX_BYTES = 256 * 2**20
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")

_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION, _DATE = 20, (1 << 5) | 1  # 1 January 1980: no clock in the bytes


def pack(members: Mapping[str, bytes]) -> bytes:
    """The archive of ``members`` in their order."""
    body, directory = bytearray(), bytearray()
    for name, data in members.items():
        local, entry = _headers(name, data, len(body))
        body += local + data
        directory += entry
    return bytes(body + directory + _end(len(members), len(directory), len(body)))


def unpack(data: bytes, where: str) -> dict[str, bytes]:
    """The members of an archive; BundleFormatError unless it is the canonical form of what it holds."""
    if len(data) > MAX_BYTES:
        raise BundleFormatError(f"{where}: {len(data)} bytes; a bundle has at most {MAX_BYTES}")
    if data[:4] != b"PK\3\4":
        raise BundleFormatError(f"{where}: not a bundle (a bundle is a .evb file that 'edge-vad build' writes)")
    members: dict[str, bytes] = {}
    directory = bytearray()
    canonical = True
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        name, start, end = _member(data, at, where)
        if name in members or len(members) >= MAX_MEMBERS:
            raise BundleFormatError(f"{where}: the member {name!r} is there twice, or there are too many")
        members[name] = data[start:end]
        local, entry = _headers(name, members[name], at)
        canonical &= data[at:start] == local
        directory += entry
        at = end
    if not canonical or data[at:] != directory + _end(len(members), len(directory), at):
        raise BundleFormatError(
            f"{where}: damaged, or not written by edge-vad (not the canonical archive form); copy it again"
        )
    return members


def _headers(name: str, data: bytes, at: int) -> tuple[bytes, bytes]:
    """Local header and directory entry of a member that begins at ``at``."""
    raw = name.encode("ascii")
    common = (_VERSION, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(raw), 0)
    entry = _CENTRAL.pack(b"PK\1\2", _VERSION, *common, 0, 0, 0, 0, at) + raw
    return _LOCAL.pack(b"PK\3\4", *common) + raw, entry


def _end(n_members: int, n_directory: int, at: int) -> bytes:
    return _END.pack(b"PK\5\6", 0, 0, n_members, n_members, n_directory, at, 0)


def _member(data: bytes, at: int, where: str) -> tuple[str, int, int]:
    """Name, start and end of the member whose local header is at ``at``."""
    if at + _LOCAL.size > len(data):
        raise BundleFormatError(f"{where}: cut off in a header; copy it again")
    fields = _LOCAL.unpack_from(data, at)
    size, name_length = fields[8], fields[9]
    start = at + _LOCAL.size + name_length
    name = data[at + _LOCAL.size : start].decode("ascii", errors="replace")
    if start + size > len(data):
        raise BundleFormatError(f"{where}: cut off inside {name!r}; copy it again")
    if not NAME.fullmatch(name):
        raise BundleFormatError(f"{where}: the member name {name!r} is not allowed")
    return name, start, start + size
