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
        raw = name.encode("ascii")
        common = (_VERSION, 0, 0, 0, _DATE, zlib.crc32(data), len(data), len(data), len(raw), 0)
        directory += _CENTRAL.pack(b"PK\1\2", _VERSION, *common, 0, 0, 0, 0, len(body)) + raw
        body += _LOCAL.pack(b"PK\3\4", *common) + raw + data
    end = _END.pack(b"PK\5\6", 0, 0, len(members), len(members), len(directory), len(body), 0)
    return bytes(body + directory + end)


def unpack(data: bytes, where: str) -> dict[str, bytes]:
    """The members of an archive; BundleFormatError unless it is the canonical form of what it holds."""
    if len(data) > MAX_BYTES:
        raise BundleFormatError(f"{where}: {len(data)} bytes; a bundle has at most {MAX_BYTES}")
    if data[:4] != b"PK\3\4":
        raise BundleFormatError(f"{where}: not a bundle (a bundle is a .evb file that 'edge-vad build' writes)")
    members = _members(data, where)
    if pack(members) != data:
        raise BundleFormatError(
            f"{where}: damaged, or not written by edge-vad (not the canonical archive form); copy it again"
        )
    return members


def _members(data: bytes, where: str) -> dict[str, bytes]:
    """Walk the local headers from the start; their claims are checked against the directory by packing again."""
    members: dict[str, bytes] = {}
    at = 0
    while data[at : at + 4] == b"PK\3\4":
        if len(members) >= MAX_MEMBERS or at + _LOCAL.size > len(data):
            raise BundleFormatError(f"{where}: too many members, or cut off; copy it again")
        fields = _LOCAL.unpack_from(data, at)
        size, name_length = fields[8], fields[9]
        start = at + _LOCAL.size + name_length
        name = data[at + _LOCAL.size : start].decode("ascii", errors="replace")
        if start + size > len(data):
            raise BundleFormatError(f"{where}: cut off inside {name!r}; copy it again")
        if not NAME.fullmatch(name) or name in members:
            raise BundleFormatError(f"{where}: the member name {name!r} is not allowed")
        members[name] = data[start : start + size]
        at = start + size
    return members
