"""Files that somebody made to do harm, each refused by its own check with its own error, and by nothing native before."""

from __future__ import annotations

import io
import json
import os
import pickle
import signal
import socket
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import small_bundle
import tiny
from onnx import TensorProto, helper, numpy_helper
from remade import remade, tensor_file

from edge_vad import archive, onnx_gate, tensorfile
from edge_vad.bundle import Bundle, checked, read_bundle
from edge_vad.errors import (
    BundleError,
    BundleFormatError,
    BundleIntegrityError,
    BundleModelError,
    BundleSignatureError,
    BundleVersionError,
    SelfTestError,
)
from edge_vad.manifest import MANIFEST, SIGNATURE, canonical_json
from edge_vad.profile import load_profile
from edge_vad.self_test import check_in_child
from edge_vad.trust import UNCHECKED, Trust

MAX_SECONDS, MAX_PEAK = 20, 160 * 2**20
BANK, ENCODER, GOLDEN = "bank/spatial.safetensors", "encoder/encoder.onnx", "golden/golden.safetensors"
Build = Callable[[Path], "bytes | Path"]


@dataclass(frozen=True)
class Attack:
    """build: the bytes of a bundle file, or the path of something else. words: of the message, a regular expression."""

    build: Build
    error: type[BundleError]
    words: str
    trust: Trust = UNCHECKED


def attacks(error: type[BundleError], words: str, **builders: Build) -> list[Any]:
    """Attacks that are refused by the same check."""
    return [pytest.param(Attack(build, error, words), id=name) for name, build in builders.items()]


def always(value: bytes) -> Build:
    return lambda _: value


def good() -> dict[str, bytes]:
    """The members of a bundle that holds."""
    return small_bundle.with_manifest(small_bundle.manifest())


def whole() -> bytes:
    return archive.pack(good())


# Containers: ZIP files that other programs read, or read in another way


def zipped(
    members: list[tuple[bytes, bytes]],
    *,
    version: int = 20,
    flags: int = 0,
    method: int = 0,
    date: int = 33,
    extra: bytes = b"",
    attributes: int = 0,
    made_by: int = 20,
    comment: bytes = b"",
    end_comment: bytes = b"",
    descriptor: bool = False,
    sizes: tuple[int, int] | None = None,
    central_name: bytes = b"",
    gap: bytes = b"",
    entries: int | None = None,
) -> bytes:
    """A ZIP file with any value in any of its headers."""
    body, directory = b"", b""
    for name, data in members:
        crc, (stored, size) = zlib.crc32(data), sizes or (len(data), len(data))
        common = struct.pack("<4HH3I2H", version, flags, method, 0, date, crc, stored, size, len(name), len(extra))
        local = common if not descriptor else common[:10] + bytes(12) + common[22:]
        called = central_name or name
        central = struct.pack("<H", made_by) + common[:22] + struct.pack("<2H", len(called), len(extra))
        central += struct.pack("<3H2I", len(comment), 0, 0, attributes, len(body))
        directory += b"PK\1\2" + central + called + extra + comment
        body += b"PK\3\4" + local + name + extra + data
        body += struct.pack("<4s3I", b"PK\7\10", crc, stored, size) if descriptor else b""
        body += gap
    count = len(members) if entries is None else entries
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, count % 65536, count % 65536, len(directory), len(body), len(end_comment))
    return body + directory + end + end_comment


def with_headers(**headers: Any) -> Build:
    return lambda _: zipped([(name.encode(), data) for name, data in good().items()], **headers)


def named(name: bytes) -> Build:
    return lambda _: zipped([*((n.encode(), data) for n, data in good().items()), (name, b"x")])


def other_program(compression: int, more: dict[str, bytes] | None = None) -> Build:
    """What the module zipfile writes."""

    def build(_: Path) -> bytes:
        made = io.BytesIO()
        with zipfile.ZipFile(made, "w", compression) as file:
            for name, data in {**good(), **(more or {})}.items():
                file.writestr(name, data)
        return made.getvalue()

    return build


def overlapping(_: Path) -> bytes:
    """A directory entry for a member inside another member's content."""
    inner = zipped([(b"b.txt", b"inside")])
    local, entry = inner[: 30 + 5 + 6], inner[30 + 5 + 6 : -archive._END.size]
    outer = archive.pack({**good(), "x.bin": local})
    end = [*archive._END.unpack(outer[-archive._END.size :])]
    entry = entry[:42] + outer.index(local).to_bytes(4, "little") + entry[46:]
    end[3:6] = [end[3] + 1, end[4] + 1, end[5] + len(entry)]
    return outer[: -archive._END.size] + entry + archive._END.pack(*end)


def claims(n: int) -> Build:
    def build(_: Path) -> bytes:
        data = bytearray(whole())
        data[18:22] = data[22:26] = n.to_bytes(4, "little")
        return bytes(data)

    return build


def patched(old: bytes, new: bytes, count: int = -1) -> Build:
    def build(_: Path) -> bytes:
        assert old in whole()
        return whole().replace(old, new, count)

    return build


def huge_file(folder: Path) -> Path:
    path = folder / "site.evb"
    with path.open("wb") as file:
        file.write(b"PK\3\4")
        file.truncate(archive.MAX_BYTES + 1)
    return path


CANONICAL, CUT, NAME = "not the canonical archive form", "cut off", "the member name '.*' is not allowed"
CONTAINERS = [
    *attacks(
        BundleFormatError,
        NAME,
        up=named(b"../../etc/cron.d/x"),
        up_inside=named(b"bank/../../x"),
        absolute=named(b"/etc/passwd"),
        backslash=named(b"..\\..\\windows\\x"),
        drive=named(b"C:\\x"),
        drive_relative=named(b"C:x"),
        null_byte=named(b"a.json\0.onnx"),
        utf8=named("bänk/x".encode()),
        right_to_left=named("a\u202etxt.evb".encode()),
        not_ascii=named(b"\xff\xfe"),
        too_deep=named(b"a/b/c"),
        hidden=named(b".bashrc"),
        hidden_folder=named(b".ssh/authorized_keys"),
        dot=named(b"."),
        nameless=named(b""),
        line_break=named(b"a\nb"),
        escape_sequence=named(b"a\x1b[2Jb"),
        space=named(b"a b"),
        option=named(b"-rf"),
        folder_entry=named(b"bank/"),
        two_slashes=named(b"bank//x"),
        stream=named(b"a:b"),
    ),
    *attacks(
        BundleFormatError,
        "is there twice, or there are too many",
        duplicate_manifest=lambda _: zipped([*((n.encode(), d) for n, d in good().items()), (b"manifest.json", b"{}")]),
        duplicate_bank=lambda _: zipped([(b"manifest.json", b"{}"), (b"b", b"1"), (b"b", b"2")]),
        too_many_members=lambda _: zipped([(f"m{i}".encode(), b"") for i in range(archive.MAX_MEMBERS + 1)]),
        thousands_of_members=lambda _: zipped([(f"m{i}".encode(), b"") for i in range(5000)], entries=5000),
    ),
    *attacks(
        BundleFormatError,
        "not a bundle",
        prefix_program=lambda _: b"MZ\x90\0" + whole(),
        prefix_script=lambda _: b"#!/bin/sh\nrm -rf /\n" + whole(),
        prefix_pdf=lambda _: b"%PDF-1.4\n" + whole(),
        prefix_picture=lambda _: b"GIF89a" + whole(),
        empty_file=always(b""),
        only_an_end_record=always(zipped([])),
        pickled=always(pickle.dumps({"rows": [1, 2]})),
        numpy_array=lambda _: b"\x93NUMPY\x01\0" + bytes(118),
        text=always(b"manifest.json"),
        json=lambda _: good()[MANIFEST],
        compressed_stream=always(b"\x1f\x8b\x08" + bytes(20)),
        program=always(b"\x7fELF" + bytes(60)),
        tar=lambda folder: a_tar(folder),
        onnx_file=lambda _: small_bundle.encoder(),
        spanned=lambda _: b"PK\7\10" + whole(),
    ),
    *attacks(
        BundleFormatError,
        CANONICAL,
        trailing_bytes=lambda _: whole() + b"\0",
        trailing_script=lambda _: whole() + b"<script>alert(1)</script>",
        archive_comment=with_headers(end_comment=b"#!/bin/sh"),
        second_end_record=lambda _: whole() + zipped([]),
        second_archive=lambda _: whole() + whole(),
        no_directory=lambda _: whole()[: whole().index(b"PK\1\2")],
        directory_twice=lambda _: whole()[: -archive._END.size] + whole()[whole().index(b"PK\1\2") :],
        empty_directory=lambda _: whole()[: whole().index(b"PK\1\2")] + zipped([]),
        other_name_in_the_directory=with_headers(central_name=b"virus.exe"),
        gap_between_members=with_headers(gap=b"hidden content"),
        member_that_is_not_listed=lambda _: hidden_member(),
        of_another_program=other_program(zipfile.ZIP_STORED),
        encrypted=with_headers(flags=1),
        strongly_encrypted=with_headers(flags=1 | 64),
        utf8_names=with_headers(flags=1 << 11),
        method_of_compression=with_headers(method=8),
        unknown_method=with_headers(method=99),
        symbolic_links=with_headers(made_by=3 << 8 | 20, attributes=0o120777 << 16),
        set_user_id=with_headers(made_by=3 << 8 | 20, attributes=0o104755 << 16),
        devices=with_headers(made_by=3 << 8 | 20, attributes=0o060666 << 16),
        folder_attribute=with_headers(attributes=16),
        other_date=with_headers(date=33 + 512),
        other_version=with_headers(version=45),
        member_comments=with_headers(comment=b"hello"),
        wrong_checksum=lambda _: whole()[:14] + bytes(4) + whole()[18:],
        fewer_entries=with_headers(entries=1),
        more_entries=with_headers(entries=65535),
        overlapping=overlapping,
        other_stored_size=lambda _: whole()[:18] + bytes(4) + whole()[22:],
    ),
    *attacks(
        BundleFormatError,
        f"{CANONICAL}|{CUT}|not allowed",
        deflated=other_program(zipfile.ZIP_DEFLATED),
        bzip2=other_program(zipfile.ZIP_BZIP2),
        lzma=other_program(zipfile.ZIP_LZMA),
        bomb=other_program(zipfile.ZIP_DEFLATED, {"bank/bomb.safetensors": bytes(2**26)}),
        data_descriptors=with_headers(flags=8, descriptor=True),
        extra_fields=with_headers(extra=b"\x99\x99\4\0abcd"),
        unicode_path_extra=with_headers(extra=struct.pack("<2HBI", 0x7075, 10, 1, 0) + b"../x\0"),
        numpy_archive=lambda _: an_npz(),
        torch_archive=lambda _: a_torch_file(),
    ),
    *attacks(
        BundleFormatError,
        "cut off inside 'manifest.json'",
        claims_4_gigabytes=claims(2**32 - 2),
        claims_one_more_byte_than_there_is=lambda _: claims(len(whole()) - 30 - len(MANIFEST) + 1)(Path()),
        zip64=with_headers(sizes=(2**32 - 1, 2**32 - 1), extra=struct.pack("<2H2Q", 1, 16, 10, 2**40), version=45),
    ),
    *attacks(BundleFormatError, "cut off in a header", cut=lambda _: whole()[:29], signature_only=always(b"PK\3\4")),
    *attacks(BundleFormatError, "at most 268435456 are read", huge_sparse_file=huge_file),
    *attacks(
        BundleFormatError,
        "its first member is not manifest.json",
        manifest_last=lambda _: archive.pack(dict(reversed(good().items()))),
        no_manifest=lambda _: archive.pack(small_bundle.members()),
        signature_first=lambda _: archive.pack({SIGNATURE: b"x", **good()}),
    ),
]


def hidden_member() -> bytes:
    """A member in front that only a reader of local headers sees."""
    data = whole()
    at = data.index(b"PK\1\2")
    return data[:at] + zipped([(b"payload.bin", b"hidden")])[: 30 + 11 + 6] + data[at:]


def a_tar(folder: Path) -> bytes:
    with tarfile.open(folder / "x.tar", "w") as file:
        (folder / "x").write_bytes(b"x")
        file.add(folder / "x", "../x")
    return (folder / "x.tar").read_bytes()


def an_npz() -> bytes:
    made = io.BytesIO()
    np.savez_compressed(made, rows=np.zeros((1000, 1000), np.float16))
    return made.getvalue()


class Harmful:
    """Would run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.system, ("touch /tmp/edge-vad-was-attacked",))


def a_torch_file() -> bytes:
    """Laid out like torch.save does: a stored ZIP with a pickle in it."""
    return zipped(
        [(b"archive/data.pkl", pickle.dumps(Harmful())), (b"archive/data/0", bytes(8)), (b"archive/version", b"3")]
    )


# JSON: the manifest, and the other two texts


def manifest_text(data: bytes) -> Build:
    return lambda _: archive.pack({**good(), MANIFEST: data})


def text_of(name: str, data: bytes) -> Build:
    return lambda _: archive.pack(remade(good(), {name: data}))


def spelled(old: bytes, new: bytes) -> Build:
    """The manifest with something in it spelled in another way."""

    def build(_: Path) -> bytes:
        text = good()[MANIFEST]
        assert old in text
        return archive.pack({**good(), MANIFEST: text.replace(old, new, 1)})

    return build


YAML = b"format: edge-vad-bundle\nname: !!python/object/apply:os.system ['true']\n"
SERIAL = b'"serial":1'
TEXTS = [
    *attacks(
        BundleFormatError,
        r"manifest\.json: not valid JSON",
        manifest_of_yaml=manifest_text(YAML),
        manifest_of_pickle=manifest_text(pickle.dumps(Harmful())),
        manifest_of_xml=manifest_text(b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>'),
        manifest_empty=manifest_text(b""),
        manifest_of_zeros=manifest_text(bytes(1000)),
        nan=spelled(SERIAL, b'"serial":NaN'),
        infinity=spelled(SERIAL, b'"serial":-Infinity'),
        number_that_overflows=spelled(SERIAL, b'"serial":1e999'),
        integer_of_5000_digits=spelled(SERIAL, b'"serial":' + b"9" * 5000),
        integer_of_65_bits=spelled(SERIAL, b'"serial":' + str(2**63).encode()),
        float_of_400_digits=spelled(b'"ratio":1.0', b'"ratio":1' + b"0" * 400),
        deep=manifest_text(b'{"format":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        deep_objects=manifest_text(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
        single_quotes=manifest_text(b"{'format':'edge-vad-bundle'}"),
        comment=spelled(SERIAL, b'/* 2 */"serial":1'),
        trailing_comma=manifest_text(b'{"format":"edge-vad-bundle",}'),
        two_values=lambda _: archive.pack({**good(), MANIFEST: good()[MANIFEST] * 2}),
        overlong_utf8=spelled(b'"site"', b'"\xc0\xae\xc0\xae/"'),
        raw_control_character=spelled(b'"site"', b'"si\nte"'),
        lone_surrogate=spelled(b'"site"', b'"\\ud800"'),
    ),
    *attacks(
        BundleFormatError,
        r"manifest\.json: not canonical JSON",
        key_twice=spelled(SERIAL, SERIAL + b',"serial":2'),
        format_twice=spelled(b'"format":', b'"format":"x","format":'),
        byte_order_mark=lambda _: archive.pack({**good(), MANIFEST: b"\xef\xbb\xbf" + good()[MANIFEST]}),
        utf16=lambda _: archive.pack({**good(), MANIFEST: good()[MANIFEST].decode().encode("utf-16")}),
        utf16_without_mark=lambda _: archive.pack({**good(), MANIFEST: good()[MANIFEST].decode().encode("utf-16-le")}),
        utf32=lambda _: archive.pack({**good(), MANIFEST: good()[MANIFEST].decode().encode("utf-32")}),
        spaces=spelled(SERIAL, b'"serial": 1'),
        line_at_the_end=lambda _: archive.pack({**good(), MANIFEST: good()[MANIFEST] + b"\n"}),
        escaped_name=spelled(b'"site"', b'"\\u0073ite"'),
        unsorted=spelled(b'{"banks"', b'{"zzz":1,"banks"'),
        minus_zero_float=spelled(b'"ratio":1.0', b'"ratio":1.00'),
        list_of_everything=manifest_text(b"[]"),
        only_a_number=manifest_text(b"1"),
    ),
    *attacks(
        BundleFormatError,
        r"manifest\.json: control characters",
        escape_sequence_in_the_name=spelled(b'"site"', b'"\\u001b[2Jsite"'),
        line_break_in_the_name=spelled(b'"site"', b'"site\\nedge-vad: all is well"'),
        line_separator_in_a_key=spelled(b'"a test"}', '"a test","\u2028":1}'.encode()),
        delete_in_a_list=spelled(b'["Add"]', b'["Add\x7f"]'),
    ),
    *attacks(
        BundleFormatError,
        "bytes of JSON; at most 1048576 are read",
        manifest_of_a_megabyte=manifest_text(b'{"a":"' + b"x" * 2**20 + b'"}'),
        calibration_of_a_megabyte=text_of("calibration.json", b'{"a":"' + b"x" * 2**20 + b'"}'),
    ),
    *attacks(
        BundleFormatError,
        r"calibration\.json: not valid JSON",
        calibration_of_yaml=text_of("calibration.json", b"threshold: 1.0\n"),
        calibration_of_pickle=text_of("calibration.json", pickle.dumps(Harmful())),
        calibration_with_nan=text_of("calibration.json", b'{"centre":NaN}'),
        calibration_deep=text_of("calibration.json", b"[" * 100_000),
    ),
    *attacks(
        BundleFormatError,
        r"calibration\.json: not canonical JSON",
        calibration_key_twice=text_of("calibration.json", b'{"period_s":0.2,"period_s":9.0}'),
    ),
    *attacks(
        BundleFormatError,
        r"preprocessing\.json: not (valid|canonical) JSON",
        preprocessing_of_yaml=text_of("preprocessing.json", b"size: [1, 2]\n"),
        preprocessing_key_twice=text_of("preprocessing.json", b'{"size":[1,2],"size":[3,4]}'),
    ),
]


# The manifest: right JSON, wrong meaning


def manifest_with(**changes: Any) -> Build:
    return lambda _: archive.pack(small_bundle.with_manifest({**small_bundle.manifest(), **changes}))


def manifest_at(*path: str, value: Any = None) -> Build:
    """The manifest with another value at a path."""

    def build(_: Path) -> bytes:
        plain = json.loads(canonical_json(small_bundle.manifest()))
        inner = plain
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        return archive.pack({**good(), MANIFEST: canonical_json(plain)})

    return build


def banks_of(name: str, file: str = BANK) -> Build:
    return manifest_with(banks={name: {"file": file, "rows": 2, "dimensions": 3, "vectors": "fp16"}})


WRONG_TYPES: dict[str, list[Any]] = {
    "name": [1, None, ["a"], {}],
    "serial": ["1", 1.5, None, True, [1], -1],
    "method": [1, None, []],
    "written_by": [1, None],
    "requires": [[], "0.1", {"edge_vad": 1}, None],
    "compatible": [1, None, []],
    "models": [[], "x", None, {"encoder": "x"}, {"encoder": {}}],
    "banks": [[], "x", None, {"spatial": 1}, {"spatial": {"file": BANK}}],
    "features": [1, None, ["x"]],
    "footage": ["x", None, {}, {"clips": "1", "frames_processed": 1, "ratio": 1.0}],
    "files": [[], "x", None, {"a": 1}, {"a": {"size": 1}}, {"a": {"size": "1", "sha256": "x"}}],
    "indexes": [[], 1, {"spatial": {}}, {"spatial": {"file": 1}}],
}
MANIFESTS = [
    *(
        case
        for key, values in WRONG_TYPES.items()
        for i, value in enumerate(values)
        for case in attacks(BundleFormatError, rf"manifest\.json: {key}", **{f"{key}_{i}": manifest_with(**{key: value})})
    ),
    *attacks(
        BundleFormatError,
        r"manifest\.json: (models|banks|files)\.",
        model_file=manifest_at("models", "encoder", "file", value=1),
        model_precision=manifest_at("models", "encoder", "precision", value="fp64"),
        model_shape=manifest_at("models", "encoder", "inputs", value={"image": "1x3"}),
        model_shape_of_floats=manifest_at("models", "encoder", "inputs", value={"image": [1.0]}),
        model_operators=manifest_at("models", "encoder", "operators", value="Add"),
        model_key=manifest_at("models", "encoder", "command", value="rm"),
        model_cosine=manifest_at("models", "encoder", "cosine_to_fp32", value="1"),
        bank_rows=manifest_at("banks", "spatial", "rows", value="2"),
        bank_rows_of_a_float=manifest_at("banks", "spatial", "rows", value=2.0),
        bank_vectors=manifest_at("banks", "spatial", "vectors", value="fp64"),
        bank_key=manifest_at("banks", "spatial", "pickle", value=True),
        file_size=manifest_at("files", BANK, "size", value=None),
        file_hash=manifest_at("files", BANK, "sha256", value=0),
    ),
    *attacks(
        BundleFormatError,
        "not an edge-vad bundle",
        format_other=manifest_with(format="tarball"),
        format_number=manifest_with(format=1),
        format_list=manifest_with(format=["edge-vad-bundle"]),
        format_none=manifest_with(format=None),
    ),
    *attacks(
        BundleFormatError,
        "schema is not",
        schema_text=manifest_with(schema="1.0"),
        schema_true=manifest_with(schema=[True, 0]),
        schema_floats=manifest_with(schema=[1.0, 0]),
        schema_long=manifest_with(schema=[1, 0, 0]),
    ),
    *attacks(
        BundleVersionError,
        r"bundle schema .*reads 1\.x; install edge-vad",
        schema_next=manifest_with(schema=[2, 0], requires={"edge_vad": "9.0"}),
        schema_last=manifest_with(schema=[0, 9]),
        schema_negative=manifest_with(schema=[-1, 0]),
    ),
    *attacks(
        BundleFormatError,
        "the name '.*' is not allowed",
        bank_name_up=banks_of("../../../../tmp/evil"),
        bank_name_absolute=banks_of("/etc/cron.d/evil"),
        bank_name_with_folder=banks_of("a/b"),
        bank_name_hidden=banks_of(".evil"),
        bank_name_empty=banks_of(""),
        bank_name_backslash=banks_of("..\\evil"),
        model_role_up=manifest_with(models={"../evil": small_bundle.manifest()["models"]["encoder"]}),
    ),
    *attacks(
        BundleFormatError,
        "is not among the files",
        bank_file_up=banks_of("spatial", "../../etc/shadow"),
        bank_file_absolute=banks_of("spatial", "/dev/zero"),
        bank_file_manifest=banks_of("spatial", MANIFEST),
        bank_file_signature=banks_of("spatial", SIGNATURE),
        model_file_up=manifest_at("models", "encoder", "file", value="../encoder.onnx"),
        index_file_url=manifest_with(indexes={"spatial": {"file": "http://x/index"}}),
        no_licences=lambda _: files_without("LICENSES.txt"),
        no_golden=lambda _: files_without(GOLDEN),
        no_files=manifest_with(files={}),
    ),
    *attacks(
        BundleFormatError,
        "one file has two meanings",
        bank_is_the_model=banks_of("spatial", ENCODER),
        bank_is_the_calibration=banks_of("spatial", "calibration.json"),
        index_is_the_bank=manifest_with(indexes={"spatial": {"file": BANK}}),
        two_banks_in_one_file=manifest_with(banks={n: small_bundle.manifest()["banks"]["spatial"] for n in ("a", "b")}),
        model_is_the_licence=manifest_at("models", "encoder", "file", value="LICENSES.txt"),
    ),
    *attacks(
        BundleFormatError,
        "an index for the bank 'other'",
        index_of_no_bank=lambda _: archive.pack({**good(), MANIFEST: index_of_no_bank()}),
    ),
    *attacks(
        BundleIntegrityError,
        "is missing",
        member_missing=lambda _: archive.pack({n: d for n, d in good().items() if n != "LICENSES.txt"}),
        file_up=lambda _: files_with("../../etc/passwd"),
        file_absolute=lambda _: files_with("/etc/passwd"),
        file_manifest=lambda _: files_with(MANIFEST),
        file_signature=lambda _: files_with(SIGNATURE),
    ),
    *attacks(
        BundleIntegrityError,
        "is not in the manifest",
        member_extra=lambda _: archive.pack({**good(), "virus.bin": b"x"}),
        member_other_case=lambda _: archive.pack({**good(), "licenses.txt": b"x"}),
    ),
    *attacks(
        BundleIntegrityError,
        "does not match its hash",
        bank_changed=lambda _: archive.pack({**good(), BANK: good()[BANK][:-1] + b"\0"}),
        bank_longer=lambda _: archive.pack({**good(), BANK: good()[BANK] + b"\0"}),
        bank_pickled=lambda _: archive.pack({**good(), BANK: pickle.dumps(Harmful())}),
        size_lies=manifest_at("files", BANK, "size", value=1),
        hash_in_capitals=lambda _: archive.pack(capital_hashes()),
        hash_empty=manifest_at("files", BANK, "sha256", value=""),
    ),
    *attacks(
        BundleIntegrityError,
        "belong to another encoder",
        features_lie=manifest_with(features="0" * 64),
        features_empty=manifest_with(features=""),
    ),
    *attacks(
        BundleModelError,
        "its inputs, outputs or operators are not those of the manifest",
        inputs_lie=manifest_at("models", "encoder", "inputs", value={"image": [1, 3, 9, 9]}),
        outputs_lie=manifest_at("models", "encoder", "outputs", value={}),
        operators_lie=manifest_at("models", "encoder", "operators", value=["Relu"]),
    ),
]


def files_with(name: str) -> bytes:
    files = {**small_bundle.manifest()["files"], name: {"size": 1, "sha256": "0" * 64}}
    return archive.pack(small_bundle.with_manifest({**small_bundle.manifest(), "files": files}))


def files_without(name: str) -> bytes:
    contents = {n: d for n, d in small_bundle.members().items() if n != name}
    files = {n: entry for n, entry in small_bundle.manifest()["files"].items() if n != name}
    return archive.pack(small_bundle.with_manifest({**small_bundle.manifest(), "files": files}, contents))


def capital_hashes() -> dict[str, bytes]:
    plain = small_bundle.manifest()
    for entry in plain["files"].values():
        entry["sha256"] = entry["sha256"].upper()
    return small_bundle.with_manifest(plain)


def index_of_no_bank() -> bytes:
    files = {**small_bundle.manifest()["files"], "i.safetensors": {"size": 0, "sha256": ""}}
    return canonical_json({**small_bundle.manifest(), "files": files, "indexes": {"other": {"file": "i.safetensors"}}})


# Arrays: what a bank says of itself is read with the bundle


def bank(data: bytes) -> Build:
    """A bundle with other bytes in the place of its bank."""
    return lambda _: archive.pack(remade(good(), {BANK: data}))


def header(text: bytes, data: bytes = b"") -> Build:
    return bank(tensor_file(text, data))


ARRAYS = [
    *attacks(
        BundleFormatError,
        r"bank/spatial\.safetensors: not a safetensors file: its header is cut off or too long",
        bank_empty=bank(b""),
        bank_of_7_bytes=bank(bytes(7)),
        bank_header_of_2_63=bank(struct.pack("<Q", 2**63) + b"{}"),
        bank_header_past_the_end=bank(struct.pack("<Q", 3) + b"{}"),
        bank_header_of_100_megabytes=bank(struct.pack("<Q", 10**8) + b"{" * 100),
        bank_header_longer_than_allowed=bank(
            tensor_file({"a" * 70_000: {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})
        ),
        bank_of_pickle=bank(pickle.dumps(Harmful())),
        bank_of_numpy=bank(b"\x93NUMPY\x01\0v\0" + b" " * 118),
        bank_of_npz=lambda folder: bank(an_npz())(folder),
        bank_of_torch=lambda folder: bank(a_torch_file())(folder),
        bank_of_hdf5=bank(b"\x89HDF\r\n\x1a\n" + bytes(100)),
    ),
    *attacks(
        BundleFormatError,
        r"bank/spatial\.safetensors: not a safetensors file: ",
        bank_of_hnswlib=bank(struct.pack("<6Q", 0, 1000, 2, 2**40, 0, 0) + bytes(100)),
        bank_header_of_nothing=header(b""),
        bank_header_of_yaml=header(b"rows: [1, 2]"),
        bank_header_deep=header(b"[" * 60_000),
        bank_header_not_utf8=header(b'{"\xff":1}'),
        bank_header_with_mark=header(b"\xef\xbb\xbf{}"),
        bank_header_huge_integer=header(b'{"a":' + b"9" * 5000 + b"}"),
    ),
    *attacks(
        BundleFormatError,
        "a key is there twice",
        bank_array_twice=header(b'{"rows":{"dtype":"F16"},"rows":{"dtype":"F32"}}'),
        bank_metadata_twice=header(b'{"__metadata__":{"features":"x"},"__metadata__":{}}'),
        bank_offsets_twice=header(b'{"rows":{"data_offsets":[0,1],"data_offsets":[0,2]}}'),
    ),
    *attacks(
        BundleFormatError,
        "its header lists no arrays, or too many",
        bank_header_list=header(b"[]"),
        bank_header_text=header(b'"rows"'),
        bank_of_65_arrays=bank(tensor_file({f"a{i}": {} for i in range(65)})),
    ),
    *attacks(
        BundleFormatError,
        "metadata that is not text",
        bank_metadata_number=header(b'{"__metadata__":{"features":1}}'),
        bank_metadata_list=header(b'{"__metadata__":["features"]}'),
        bank_metadata_none=header(b'{"__metadata__":null}'),
        bank_metadata_nested=header(b'{"__metadata__":{"features":{"a":"b"}}}'),
    ),
    *attacks(
        BundleIntegrityError,
        r"bank/spatial\.safetensors was made with other features",
        bank_without_metadata=bank(tensorfile.save({"rows": np.zeros((2, 3), np.float16)}, {})),
    ),
    *attacks(
        BundleFormatError,
        r"golden/golden\.safetensors: not a safetensors file",
        golden_of_pickle=lambda _: archive.pack(remade(good(), {GOLDEN: pickle.dumps(Harmful())})),
        golden_empty=lambda _: archive.pack(remade(good(), {GOLDEN: b""})),
    ),
]


# Models: each says that it is an encoder


def field(number: int, wire: int, payload: bytes | int) -> bytes:
    """A field of a protobuf message in its encoding."""
    if isinstance(payload, int):
        return varint(number << 3 | wire) + varint(payload)
    return varint(number << 3 | wire) + (varint(len(payload)) if wire == 2 else b"") + payload


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


Edit = Callable[[onnx.ModelProto], object]
node = helper.make_node


def value(name: str, shape: Any = (1, 3, 4, 4), kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def constant(name: str, *numbers: float, kind: Any = np.int64) -> Any:
    return numpy_helper.from_array(np.array(numbers, kind), name)


def network(*nodes: Any, constants: tuple[Any, ...] = (), edit: Edit | None = None, inputs: Any = None) -> bytes:
    """ONNX bytes of image -> tap, checked by nobody. edit: does more to the model."""
    graph = helper.make_graph([*nodes], "g", inputs or [value("image")], [value("tap")], [*constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if edit:
        edit(model)
    return bytes(model.SerializeToString())


def relu(edit: Edit) -> bytes:
    """The encoder of one Relu and a constant, with something done to it."""
    return network(node("Relu", ["image"], ["tap"]), constants=(constant("c", 1.0, 2.0, kind=np.float32),), edit=edit)


def encoder(data: bytes | Callable[[], bytes]) -> Build:
    return lambda _: archive.pack(remade(good(), {ENCODER: data() if callable(data) else data}))


def edited(edit: Edit) -> Build:
    return encoder(lambda: relu(edit))


def nodes(*made: Any, constants: tuple[Any, ...] = ()) -> Build:
    return encoder(lambda: network(*made, constants=constants))


def set_external(model: onnx.ModelProto, location: str, declared: bool = True) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.external_data.add(key="location", value=location)
    if declared:
        tensor.data_location = TensorProto.EXTERNAL


def a_loop(name: str, condition: bool = True) -> Any:
    """A loop that never ends: its condition stays as it is."""
    body = helper.make_graph(
        [node("Identity", ["go"], ["again"]), node("Identity", ["x"], ["y"])],
        "body",
        [value("i", [], TensorProto.INT64), value("go", [], TensorProto.BOOL), value("x")],
        [value("again", [], TensorProto.BOOL), value("y")],
    )
    return node(name, ["", "true" if condition else "", "image"], ["tap"], body=body)


def a_branch() -> Any:
    branch = helper.make_graph([node("Identity", ["image"], ["x"])], "b", [], [value("x")])
    return node("If", ["image"], ["tap"], then_branch=branch, else_branch=branch)


def bomb_of_145_bytes() -> bytes:
    """A small file whose first run makes 2.2 GB: a shape as a constant, filled by ConstantOfShape."""
    return network(
        node("ConstantOfShape", ["shape"], ["filled"]),
        node("ReduceMax", ["filled"], ["most"], keepdims=0),
        node("Add", ["image", "most"], ["tap"]),
        constants=(constant("shape", 2**19, 1100),),
    )


def function(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function("mine", "F", ["a"], ["b"], [node("Relu", ["a"], ["b"])], [helper.make_opsetid("", 17)])
    )


def typed_lie(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.float_data.extend([1.0] * 3)


def one_field_in_the_wrong_wire_type() -> bytes:
    """The runtime skips a raw_data of wire type 1 and takes the one before it: 2 ** 40 elements, where 1 is read here."""
    shape = field(1, 0, 1) + field(2, 0, 7) + field(8, 2, b"s") + field(9, 2, struct.pack("<q", 2**40))
    graph = field(5, 2, shape + field(9, 1, struct.pack("<q", 1)))
    good_one = onnx.load_model_from_string(
        network(node("ConstantOfShape", ["s"], ["x"]), node("Add", ["image", "x"], ["tap"]))
    )
    return field(7, 2, good_one.graph.SerializeToString() + graph) + field(8, 2, field(2, 0, 17)) + field(1, 0, 8)


def constant_of_two_tensors() -> bytes:
    made = node("Constant", [], ["s"], value=constant("", 2**40))
    made.attribute[0].tensors.append(constant("", 1))
    return network(made, node("ConstantOfShape", ["s"], ["x"]), node("Add", ["image", "x"], ["tap"]))


def constant_of_two_values() -> bytes:
    made = node("Constant", [], ["s"], value=constant("", 2**40))
    made.attribute.append(helper.make_attribute("value", constant("", 1)))
    return network(made, node("ConstantOfShape", ["s"], ["x"]), node("Add", ["image", "x"], ["tap"]))


def packed_integers() -> bytes:
    attribute = field(1, 2, b"value_ints") + field(8, 2, bytes(2**20))
    made = field(2, 2, b"s") + field(4, 2, b"Constant") + field(5, 2, attribute)
    return field(7, 2, field(1, 2, made))


def two_kinds() -> bytes:
    """A dimension that is a number here and open for the runtime: of a protobuf oneof the last one counts."""
    model = onnx.load_model_from_string(relu(lambda m: m.graph.ClearField("input")))
    shape = field(1, 2, field(1, 0, 4) + field(2, 2, b"open"))
    image = field(1, 2, b"image") + field(2, 2, field(1, 2, field(1, 0, 1) + field(2, 2, shape)))
    return field(7, 2, model.graph.SerializeToString() + field(11, 2, image)) + field(8, 2, field(2, 0, 17))


def sequence_input() -> bytes:
    sequence = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [1]))
    return network(node("Relu", ["image"], ["tap"]), inputs=[helper.make_value_info("image", sequence)])


ONES = (constant("one", 1.0, kind=np.float32),)
REFUSED = r"encoder/encoder\.onnx: the model is refused: "
NO_MODEL = r"encoder/encoder\.onnx: not an ONNX model: "
SMALL = "by what is not a small constant"
MODELS = [
    *attacks(
        BundleModelError,
        REFUSED + r"a constant \(external data\?\) with the field 13",
        external_data=edited(lambda m: set_external(m, "weights.bin")),
        external_data_up=edited(lambda m: set_external(m, "../../../etc/shadow")),
        external_data_device=edited(lambda m: set_external(m, "/dev/zero")),
        external_data_in_memory=edited(lambda m: set_external(m, "*/_ORT_MEM_ADDR_/*")),
        external_data_not_declared=edited(lambda m: set_external(m, "weights.bin", declared=False)),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "external data",
        data_location_only=edited(lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL)),
    ),
    *attacks(
        BundleModelError,
        REFUSED + r"a constant \(external data\?\) with the field",
        segmented_constant=edited(lambda m: setattr(m.graph.initializer[0].segment, "begin", 1)),
        text_constant=edited(lambda m: m.graph.initializer[0].string_data.append(b"x")),
        constant_of_wrong_wire_type=encoder(one_field_in_the_wrong_wire_type),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "the operator '.*' is not allowed",
        loop=nodes(a_loop("Loop"), constants=ONES),
        loop_without_condition=nodes(a_loop("Loop", condition=False)),
        scan=nodes(node("Scan", ["image"], ["tap"], num_scan_inputs=1)),
        branch=nodes(a_branch()),
        sequence_map=nodes(a_loop("SequenceMap")),
        foreign_domain=nodes(node("Relu", ["image"], ["tap"], domain="com.microsoft")),
        training_domain=nodes(node("Gradient", ["image"], ["tap"], domain="ai.onnx.preview.training")),
        unknown_operator=nodes(node("RunCommand", ["image"], ["tap"])),
        operator_of_another_case=nodes(node("relu", ["image"], ["tap"])),
        operator_with_a_line_break=nodes(node("Re\nlu\x1b[2J", ["image"], ["tap"])),
        overload=edited(lambda m: setattr(m.graph.node[0], "overload", "mine")),
        no_operator=edited(lambda m: m.graph.node[0].ClearField("op_type")),
        random_numbers=nodes(node("RandomNormal", [], ["tap"], shape=[2**20, 2**20])),
        range_bomb=nodes(node("Range", ["a", "b", "c"], ["tap"])),
        one_hot_bomb=nodes(node("OneHot", ["image", "a", "b"], ["tap"])),
        non_zero=nodes(node("NonZero", ["image"], ["tap"])),
        regular_expression=nodes(node("RegexFullMatch", ["image"], ["tap"], pattern="(a+)+$")),
        optional=nodes(node("Optional", ["image"], ["tap"])),
        python_operator=nodes(node("PyOp", ["image"], ["tap"], domain="ai.onnx.contrib")),
        blackbox=nodes(node("ATen", ["image"], ["tap"], domain="org.pytorch.aten")),
    ),
    *attacks(
        BundleModelError,
        REFUSED + r"an attribute of \w+ \(a sub-graph\?\) with the field (6|11|21|22|23)",
        hidden_sub_graph=nodes(node("Relu", ["image"], ["tap"], then=helper.make_graph([], "g", [], []))),
        hidden_sub_graphs=nodes(node("Relu", ["image"], ["tap"], all=[helper.make_graph([], "g", [], [])])),
        sparse_value=nodes(
            node("Constant", [], ["c"], sparse_value=helper.make_sparse_tensor(constant("v", 1), constant("i", 0), [2**40])),
            node("Relu", ["image"], ["tap"]),
        ),
        attribute_of_a_function=edited(
            lambda m: m.graph.node[0].attribute.add(name="a", ref_attr_name="b", type=onnx.AttributeProto.INT)
        ),
    ),
    *attacks(
        BundleModelError,
        REFUSED + r"a (model|graph|node|type) with the field",
        local_function=edited(function),
        training_info=edited(lambda m: m.training_info.add()),
        sparse_constant=edited(
            lambda m: m.graph.sparse_initializer.append(
                helper.make_sparse_tensor(constant("v", 1), constant("i", 0), [2**40])
            )
        ),
        unknown_model_field=encoder(lambda: relu(lambda _: None) + field(99, 2, b"x")),
        unknown_node_field=encoder(lambda: network(node("Relu", ["image"], ["tap"])).replace(b'"\x04Relu', b"r\x04Relu")),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "operators of the domain",
        foreign_operator_set=edited(lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft", 1))),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "ConstantOfShape to|" + REFUSED + f"ConstantOfShape {SMALL}",
        bomb_of_145_bytes=encoder(bomb_of_145_bytes),
        bomb_of_zeros=nodes(node("ConstantOfShape", ["s"], ["tap"]), constants=(constant("s", 2**20, 2**20),)),
        bomb_of_a_negative_shape=nodes(node("ConstantOfShape", ["s"], ["tap"]), constants=(constant("s", -(2**40)),)),
        bomb_of_a_computed_shape=nodes(
            node("Mul", ["s", "s"], ["t"]), node("ConstantOfShape", ["t"], ["tap"]), constants=(constant("s", 2**20),)
        ),
        bomb_of_65_dimensions=nodes(node("ConstantOfShape", ["s"], ["tap"]), constants=(constant("s", *[2] * 65),)),
        bomb_of_a_later_constant=nodes(
            node("ConstantOfShape", ["s"], ["tap"]), node("Constant", [], ["s"], value=constant("", 2**40))
        ),
        bomb_in_an_attribute=nodes(
            node("Constant", [], ["s"], value_ints=[2**20, 2**20]), node("ConstantOfShape", ["s"], ["tap"])
        ),
    ),
    *attacks(
        BundleModelError,
        REFUSED + r"an attribute of Constant (without a name, or with many values|is given twice)",
        bomb_behind_a_second_tensor=encoder(constant_of_two_tensors),
        bomb_behind_a_second_value=encoder(constant_of_two_values),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "'s' is made twice",
        bomb_behind_a_second_constant=nodes(
            node("Constant", [], ["s"], value=constant("", 2**40)),
            node("Constant", [], ["s"], value=constant("", 1)),
            node("ConstantOfShape", ["s"], ["tap"]),
        ),
        bomb_behind_an_initializer=nodes(
            node("Mul", ["t", "t"], ["s"]),
            node("ConstantOfShape", ["s"], ["tap"]),
            constants=(constant("t", 2**30), constant("s", 1)),
        ),
        two_initializers_of_a_name=nodes(node("Relu", ["image"], ["tap"]), constants=(constant("s", 1), constant("s", 2))),
    ),
    *attacks(
        BundleModelError,
        REFUSED + f"Expand (to|{SMALL})",
        expand_bomb=nodes(node("Expand", ["image", "s"], ["tap"]), constants=(constant("s", 2**20, 3, 64, 64),)),
        expand_by_what_is_computed=nodes(
            node("Mul", ["s", "s"], ["t"]), node("Expand", ["image", "t"], ["tap"]), constants=(constant("s", 2**20, 1),)
        ),
        expand_to_65_dimensions=nodes(node("Expand", ["image", "s"], ["tap"]), constants=(constant("s", *[2] * 65),)),
    ),
    *attacks(
        BundleModelError,
        REFUSED + f"(Resize, Tile and ConvTranspose make more|Resize, Tile|Tile {SMALL}|Resize {SMALL}|Resize to)",
        tile_bomb=nodes(node("Tile", ["image", "s"], ["tap"]), constants=(constant("s", 1, 1, 2**20, 2**20),)),
        tile_by_what_is_computed=nodes(node("Tile", ["image", "image"], ["tap"])),
        tile_in_steps=nodes(
            node("Tile", ["image", "s"], ["a"]), node("Tile", ["a", "s"], ["tap"]), constants=(constant("s", 1, 1, 32, 32),)
        ),
        resize_bomb=nodes(
            node("Resize", ["image", "", "f"], ["tap"]), constants=(constant("f", 1, 1, 9999, 9999, kind=np.float32),)
        ),
        resize_by_infinity=nodes(
            node("Resize", ["image", "", "f"], ["tap"]), constants=(constant("f", 1, 1, 2, np.inf, kind=np.float32),)
        ),
        resize_by_nan=nodes(
            node("Resize", ["image", "", "f"], ["tap"]), constants=(constant("f", 1, 1, 2, np.nan, kind=np.float32),)
        ),
        resize_by_what_is_computed=nodes(node("Resize", ["image", "", "image"], ["tap"])),
        resize_to_a_bomb=nodes(
            node("Resize", ["image", "", "", "s"], ["tap"]), constants=(constant("s", 1, 3, 2**20, 2**20),)
        ),
        resize_to_what_is_computed=nodes(
            node("Shape", ["image"], ["t"]),
            node("Mul", ["t", "s"], ["u"]),
            node("Resize", ["image", "", "", "u"], ["tap"]),
            constants=(constant("s", 2**20),),
        ),
        resize_of_the_old_form=nodes(
            node("Resize", ["image", "f"], ["tap"]), constants=(constant("f", 1, 1, 9999, 9999, kind=np.float32),)
        ),
        transposed_convolutions=nodes(
            *(
                node("ConvTranspose", [f"t{i}" if i else "image", "w"], [f"t{i + 1}"], strides=[1000, 1000])
                for i in range(4)
            ),
            node("Relu", ["t4"], ["tap"]),
        ),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "Resize of some axes",
        resize_of_some_axes=nodes(
            node("Resize", ["image", "", "", "s"], ["tap"], axes=[2, 3]), constants=(constant("s", 8192, 8192),)
        ),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "Pad by",
        pad_bomb=nodes(node("Pad", ["image", "p"], ["tap"]), constants=(constant("p", *[1024] * 8),)),
        pad_far=nodes(node("Pad", ["image", "p"], ["tap"]), constants=(constant("p", 0, 0, 2**30, 2**30, 0, 0, 0, 0),)),
        pad_by_what_is_computed=nodes(node("Pad", ["image", "image"], ["tap"])),
        pad_of_the_old_form=nodes(node("Pad", ["image"], ["tap"], pads=[1000] * 8)),
    ),
    *attacks(
        BundleModelError,
        REFUSED + r"\w+: (pads|strides|dilations|kernel_shape|output_padding|output_shape|blocksize|hidden_size) above 1024",
        convolution_with_huge_pads=nodes(node("Conv", ["image", "w"], ["tap"], pads=[2**30] * 4)),
        convolution_with_negative_pads=nodes(node("Conv", ["image", "w"], ["tap"], pads=[-(2**30)] * 4)),
        convolution_with_huge_strides=nodes(node("Conv", ["image", "w"], ["tap"], strides=[2**40, 1])),
        pooling_with_a_huge_kernel=nodes(node("MaxPool", ["image"], ["tap"], kernel_shape=[2**20, 2**20])),
        transposed_to_a_huge_shape=nodes(node("ConvTranspose", ["image", "w"], ["tap"], output_shape=[2**20, 2**20])),
        huge_recurrent_state=nodes(node("LSTM", ["image", "w", "r"], ["tap"], hidden_size=2**30)),
        huge_blocks=nodes(node("DepthToSpace", ["image"], ["tap"], blocksize=2**20)),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "a constant (whose|of|that|without)",
        constant_with_fewer_bytes=edited(lambda m: setattr(m.graph.initializer[0], "raw_data", b"1234")),
        constant_with_more_bytes=edited(lambda m: setattr(m.graph.initializer[0], "raw_data", bytes(1000))),
        constant_without_bytes=edited(lambda m: m.graph.initializer[0].ClearField("raw_data")),
        constant_whose_dims_lie=edited(lambda m: m.graph.initializer[0].dims.append(1000)),
        constant_of_2_62_elements=edited(lambda m: m.graph.initializer[0].dims.extend([2**31, 2**31])),
        constant_that_overflows=edited(lambda m: m.graph.initializer[0].dims.extend([2**32, 2**32])),
        constant_of_negative_dims=edited(lambda m: m.graph.initializer[0].dims.extend([-1, -1])),
        constant_of_nine_dims=edited(lambda m: m.graph.initializer[0].dims.extend([1] * 8)),
        constant_with_other_values=edited(typed_lie),
        constant_of_a_million_more_values=edited(lambda m: m.graph.initializer[0].int64_data.extend([1] * 10**6)),
        constant_given_twice=edited(lambda m: m.graph.initializer[0].float_data.extend([1.0, 2.0])),
        constant_of_texts=edited(lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.STRING)),
        constant_of_complex_numbers=edited(lambda m: setattr(m.graph.initializer[0], "data_type", TensorProto.COMPLEX64)),
        constant_of_no_type=edited(lambda m: m.graph.initializer[0].ClearField("data_type")),
        constant_of_type_2_31=edited(lambda m: setattr(m.graph.initializer[0], "data_type", 2**31 - 1)),
        constant_without_a_name=edited(lambda m: m.graph.initializer[0].ClearField("name")),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "too many nodes",
        too_many_nodes=encoder(
            lambda: network(
                *(node("Relu", ["image"], [f"n{i}"]) for i in range(onnx_gate.MAX_NODES)), node("Relu", ["x"], ["tap"])
            )
        ),
        too_many_constants=encoder(
            lambda: relu(lambda m: m.graph.initializer.extend([TensorProto()] * onnx_gate.MAX_TENSORS))
        ),
        too_many_inputs=encoder(
            lambda: network(node("Relu", ["image"], ["tap"]), inputs=[value(f"i{i}") for i in range(100)])
        ),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "('image'|'tap'|an input or output|a dimension)",
        input_without_shape=edited(lambda m: m.graph.input[0].type.tensor_type.ClearField("shape")),
        output_without_shape=edited(lambda m: m.graph.output[0].type.tensor_type.ClearField("shape")),
        input_without_type=edited(lambda m: m.graph.input[0].ClearField("type")),
        input_of_texts=edited(lambda m: setattr(m.graph.input[0].type.tensor_type, "elem_type", TensorProto.STRING)),
        input_of_no_type=edited(lambda m: m.graph.input[0].type.tensor_type.ClearField("elem_type")),
        input_sequence=encoder(sequence_input),
        input_of_zero=edited(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 0)),
        input_of_minus_two=edited(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", -2)),
        input_of_2_40=edited(lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 2**40)),
        input_of_2_39_elements=encoder(
            lambda: network(node("Relu", ["image"], ["tap"]), inputs=[value("image", (8192, 8192, 8192))])
        ),
        input_of_nine_dimensions=encoder(
            lambda: network(node("Relu", ["image"], ["tap"]), inputs=[value("image", (1,) * 9)])
        ),
        dimension_of_two_kinds=encoder(two_kinds),
    ),
    *attacks(
        BundleModelError,
        REFUSED + "(it has no input or no output|[02] graphs in the place of one)",
        no_input=edited(lambda m: m.graph.ClearField("input")),
        no_output=edited(lambda m: m.graph.ClearField("output")),
        only_constants_as_input=edited(lambda m: setattr(m.graph.input[0], "name", "c")),
        no_graph=encoder(lambda: field(1, 0, 8)),
        two_graphs=encoder(lambda: network(node("Relu", ["image"], ["tap"])) * 2),
        empty_model=encoder(b""),
    ),
    *attacks(
        BundleModelError,
        f"{NO_MODEL}|{REFUSED}",
        model_of_pickle=encoder(pickle.dumps({"a": [1]})),
        model_of_torch=encoder(lambda: b"\x50\x4b\x03\x04" + a_torch_file()),
        model_of_onnxruntime=encoder(b"\x18\0\0\0ORTM" + bytes(64)),
        model_of_noise=encoder(bytes(range(255, 0, -1)) * 8),
    ),
    *attacks(
        BundleModelError,
        NO_MODEL,
        truncated_model=encoder(lambda: small_bundle.encoder()[:-3]),
        half_a_model=encoder(lambda: small_bundle.encoder()[: len(small_bundle.encoder()) // 2]),
        number_of_11_bytes=encoder(b"\x08" + b"\xff" * 11 + b"\x01"),
        number_without_end=encoder(b"\x08\xff\xff"),
        length_of_2_63=encoder(b"\x3a" + varint(2**63) + b"x"),
        group=encoder(b"\x3b\x3c"),
        wire_type_7=encoder(b"\x3f\x00"),
        name_that_is_no_text=encoder(lambda: small_bundle.encoder().replace(b"image", b"\xffmage")),
        packed_list_of_a_megabyte=encoder(packed_integers),
        model_of_text=encoder(b"onnx"),
        wrong_pads=nodes(node("Pad", ["image", "p"], ["tap"]), constants=(constant("p", 1, 2, 3),)),
    ),
]


# Folders: the unpacked form, which other programs of the device may write into


def unpacked(folder: Path, members: dict[str, bytes] | None = None) -> Path:
    bundle = folder / "site"
    for name, data in (members or good()).items():
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(data)
    return bundle


def lying(change: Callable[[Path], object]) -> Build:
    """An unpacked bundle with something done to its folder."""

    def build(folder: Path) -> Path:
        bundle = unpacked(folder)
        change(bundle)
        return bundle

    return build


def link(name: str, target: str = "") -> Callable[[Path], object]:
    """A file or folder is moved out, and a symbolic link lies in its place."""

    def change(bundle: Path) -> None:
        outside = bundle.parent / "outside"
        (bundle / name).rename(outside)
        (bundle / name).symlink_to(target or outside)

    return change


def instead(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(bundle: Path) -> None:
        (bundle / name).unlink()
        make(bundle / name)

    return change


def a_socket(path: Path) -> None:
    """A socket; its name is too long for one where it lies, so it is made beside it."""
    listener = socket.socket(socket.AF_UNIX)
    before = Path.cwd()
    os.chdir(path.parent)
    try:
        listener.bind(path.name)
    finally:
        os.chdir(before)
        listener.close()


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


def added(name: str, data: bytes = b"x") -> Callable[[Path], object]:
    def change(bundle: Path) -> None:
        (bundle / name).parent.mkdir(parents=True, exist_ok=True)
        (bundle / name).write_bytes(data)

    return change


def crowd(bundle: Path) -> None:
    for i in range(archive.MAX_MEMBERS):
        (bundle / f"m{i}").touch()


def path_of(make: Callable[[Path], object]) -> Build:
    """Something else than a file or folder where the bundle should lie."""

    def build(folder: Path) -> Path:
        make(folder / "site.evb")
        return folder / "site.evb"

    return build


FOLDERS = [
    *attacks(
        BundleFormatError,
        "cannot be read: Too many levels of symbolic links",
        linked_bank=lying(link(BANK)),
        linked_manifest=lying(link(MANIFEST)),
        linked_encoder=lying(link(ENCODER)),
        link_to_a_device=lying(link(BANK, "/dev/zero")),
        link_to_nothing=lying(link(BANK, "nowhere")),
    ),
    *attacks(BundleFormatError, "bank cannot be read: Too many levels", linked_folder=lying(link("bank"))),
    *attacks(
        BundleFormatError,
        "cannot be read: not a regular file",
        fifo=lying(instead(BANK, os.mkfifo)),
        fifo_manifest=lying(instead(MANIFEST, os.mkfifo)),
        folder_in_the_place_of_a_file=lying(instead(BANK, Path.mkdir)),
        nested_folders=lying(added("bank/deep/x")),
    ),
    *attacks(BundleFormatError, "cannot be read: No such device", socket=lying(instead(BANK, a_socket))),
    *attacks(BundleFormatError, "cannot be read: 1099511627776 bytes", terabyte=lying(instead(BANK, sparse))),
    *attacks(
        BundleFormatError,
        "the file name '.*' is not allowed",
        hidden_file=lying(added(".profile")),
        hidden_inside=lying(added("bank/.x")),
        hidden_folder_inside=lying(added(".ssh/authorized_keys")),
        file_with_a_line_break=lying(added("a\nb")),
        file_with_a_space=lying(added("a b")),
        file_that_is_an_option=lying(added("-rf")),
        file_of_another_alphabet=lying(added("bänk")),
    ),
    *attacks(BundleFormatError, "more than 64 files", crowd=lying(crowd)),
    *attacks(
        BundleFormatError,
        "its first member is not manifest.json",
        empty_folder=path_of(Path.mkdir),
        folder_without_manifest=lying(lambda bundle: (bundle / MANIFEST).unlink()),
        manifest_deeper=lying(lambda bundle: (bundle / MANIFEST).rename(bundle / "bank" / MANIFEST)),
        manifest_is_a_folder=lying(instead(MANIFEST, Path.mkdir)),
    ),
    *attacks(
        BundleIntegrityError,
        "is not in the manifest|is missing",
        more_files=lying(added("virus.bin")),
        more_inside=lying(added("bank/temporal.safetensors")),
        fewer_files=lying(lambda bundle: (bundle / "LICENSES.txt").unlink()),
        file_elsewhere=lying(lambda bundle: (bundle / BANK).rename(bundle / "spatial.safetensors")),
    ),
    *attacks(
        BundleIntegrityError,
        "does not match its hash",
        other_file=lying(added(BANK, pickle.dumps(Harmful()))),
        emptied_file=lying(added(ENCODER, b"")),
    ),
    *attacks(BundleFormatError, r"manifest\.json: not valid JSON", emptied_manifest=lying(added(MANIFEST, b""))),
    *attacks(
        BundleFormatError,
        "the bundle cannot be read: not a regular file",
        path_of_a_fifo=path_of(os.mkfifo),
        path_of_a_device=lambda _: Path("/dev/zero"),
        path_of_a_terminal=lambda _: Path("/dev/null"),
        path_of_a_link_to_a_device=path_of(lambda path: path.symlink_to("/dev/zero")),
    ),
    *attacks(
        BundleFormatError,
        "the bundle cannot be read: ",
        path_of_nothing=lambda folder: folder / "nowhere.evb",
        path_of_a_link_to_nothing=path_of(lambda path: path.symlink_to("nowhere")),
        path_of_a_circle=path_of(lambda path: path.symlink_to(path)),
        path_of_a_socket=path_of(a_socket),
        path_inside_a_file=lambda folder: folder / "x" / "site.evb" if (folder / "x").write_bytes(b"") == 0 else folder,
    ),
]

# Signatures: something that is none in its place (test_signature.py and test_trust.py have the rest)


def signed_with(data: bytes) -> list[Any]:
    members = {MANIFEST: good()[MANIFEST], SIGNATURE: data, **good()}
    return [Attack(always(archive.pack(members)), BundleSignatureError, "not a minisign signature", Trust("if-present"))]


SIGNATURES = [
    pytest.param(attack, id=name)
    for name, data in {
        "signature_empty": b"",
        "signature_of_pickle": pickle.dumps(Harmful()),
        "signature_of_lines": b"\n" * 2**20,
        "signature_of_gpg": b"-----BEGIN PGP SIGNATURE-----\n\n-----END PGP SIGNATURE-----\n",
        "signature_not_utf8": b"\xff" * 300,
    }.items()
    for attack in signed_with(data)
]


# What refuses them


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """A read that blocks or never ends is a failure, not a test that hangs."""

    def too_long(*_: object) -> None:
        raise TimeoutError(f"more than {MAX_SECONDS} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(MAX_SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def nothing_native(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of everything that would hand bytes to a native library, or run them, and was called."""
    called: list[str] = []
    for name in (
        "onnxruntime.InferenceSession",
        "openvino.Core",
        "onnx.load_model_from_string",
        "safetensors.numpy.load",
        "safetensors.deserialize",
        "hnswlib.Index",
        "numpy.load",
        "numpy.frombuffer",
        "pickle.loads",
        "pickle.Unpickler",
        "zipfile.ZipFile",
        "yaml.load",
        "yaml.safe_load",
        "subprocess.Popen",
        "os.system",
        "ctypes.CDLL",
    ):
        monkeypatch.setattr(name, lambda *_, name=name, **__: called.append(name))
    return called


def refused(read: Callable[[], object], attack: Attack, where: Path) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(Exception, match=attack.words) as caught:
            read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    message = str(caught.value)
    assert type(caught.value) is attack.error
    assert message.startswith(str(where)) and message.isprintable() and len(message) < 1000
    assert peak < MAX_PEAK


@pytest.mark.parametrize("attack", [*CONTAINERS, *TEXTS, *MANIFESTS, *ARRAYS, *MODELS, *FOLDERS, *SIGNATURES])
def test_an_attack_is_refused_by_its_own_check_before_anything_native_sees_it(
    attack: Attack, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = attack.build(tmp_path)
    path = made if isinstance(made, Path) else tmp_path / "attack.evb"
    if isinstance(made, bytes):
        path.write_bytes(made)
    called = request.getfixturevalue("nothing_native")  # not before: what makes the attack uses some of it
    refused(lambda: read_bundle(path, attack.trust), attack, path)
    assert called == []
    assert not Path("/tmp/edge-vad-was-attacked").exists()


def test_a_model_of_too_many_fields_is_refused() -> None:
    with pytest.raises(BundleModelError, match=f"more than {onnx_gate.MAX_FIELDS} fields"):
        onnx_gate.check_model(field(7, 2, b"\x52\0" * (onnx_gate.MAX_FIELDS + 1)), "x")


def test_there_are_more_than_sixty_of_them() -> None:
    assert len([*CONTAINERS, *TEXTS, *MANIFESTS, *ARRAYS, *MODELS, *FOLDERS, *SIGNATURES]) > 300


def test_what_they_were_made_from_holds(tmp_path: Path) -> None:
    """Else every attack could be refused for another reason."""
    (tmp_path / "site.evb").write_bytes(whole())
    assert read_bundle(tmp_path / "site.evb").members == read_bundle(unpacked(tmp_path)).members
    (tmp_path / "link").symlink_to(tmp_path / "site")
    assert read_bundle(tmp_path / "link").members == good()  # the bundle itself may be behind a link: state/current is
    for members in (remade(good(), {}), remade(good(), {ENCODER: relu(lambda _: None)})):
        checked(members, "x", UNCHECKED)
    assert zipped([(name.encode(), data) for name, data in good().items()]) == whole()


# Banks whose arrays lie: refused when they are read


def rows(array: np.ndarray | None, **more: np.ndarray) -> bytes:
    features = {"features": small_bundle.manifest()["features"]}
    return tensorfile.save({**({"rows": array} if array is not None else {}), **more}, features)


def raw(data: bytes = b"", **entry: Any) -> bytes:
    """One array 'rows' whose header says anything."""
    said = {"dtype": "F16", "shape": [2, 3], "data_offsets": [0, 12], **entry}
    return tensor_file({"__metadata__": {"features": small_bundle.manifest()["features"]}, "rows": said}, data)


def two_arrays(a: list[int], b: list[int], n: int) -> bytes:
    entry = {"dtype": "U8", "shape": [4]}
    return tensor_file(
        {
            "__metadata__": {"features": small_bundle.manifest()["features"]},
            "rows": {**entry, "data_offsets": a},
            "scale": {**entry, "data_offsets": b},
        },
        bytes(n),
    )


HALF, BYTES = np.float16, np.zeros((2, 3), np.int8)
GOOD, WIDE, CODES = np.ones((2, 3), HALF), np.ones(3, np.float32), np.zeros((2, 1), np.uint8)
NOT_ROWS = r"bank/spatial\.safetensors: (not 2 x 3 finite numbers|rows are not all finite numbers)"
NO_FILE = r"bank/spatial\.safetensors: not a safetensors file: "
BANKS = [
    (NOT_ROWS, "fewer_rows", rows(GOOD[:1])),
    (NOT_ROWS, "more_rows", rows(np.ones((2000, 3), HALF))),
    (NOT_ROWS, "no_rows", rows(GOOD[:0])),
    (NOT_ROWS, "fewer_dimensions", rows(GOOD[:, :2])),
    (NOT_ROWS, "no_dimensions", rows(GOOD[:, :0])),
    (NOT_ROWS, "turned", rows(GOOD.T)),
    (NOT_ROWS, "nan", rows(np.where(GOOD == 1, np.nan, GOOD).astype(HALF))),
    (NOT_ROWS, "infinity", rows(np.full((2, 3), np.inf, HALF))),
    (NOT_ROWS, "one_nan", rows(np.array([[1, 1, 1], [1, 1, np.nan]], HALF))),
    ("beyond any feature", "infinite_scale", rows(BYTES + 1, scale=WIDE * np.inf, offset=WIDE)),
    ("beyond any feature", "nan_offset", rows(BYTES, scale=WIDE, offset=WIDE * np.nan)),
    ("no array 'rows' of two dimensions", "nothing", rows(None)),
    ("no array 'rows' of two dimensions", "other_name", rows(None, row=GOOD)),
    ("no array 'rows' of two dimensions", "one_dimension", rows(np.ones(6, HALF))),
    ("no array 'rows' of two dimensions", "three_dimensions", rows(np.ones((2, 3, 1), HALF))),
    ("neither fp16, nor int8", "float32", rows(GOOD.astype(np.float32))),
    ("neither fp16, nor int8", "float64", rows(GOOD.astype(np.float64))),
    ("neither fp16, nor int8", "booleans", rows(GOOD > 0)),
    ("neither fp16, nor int8", "bytes_without_scale", rows(BYTES)),
    ("neither fp16, nor int8", "bytes_without_offset", rows(BYTES, scale=WIDE)),
    ("not one number per dimension", "scale_of_another_width", rows(BYTES, scale=np.ones(4, np.float32), offset=WIDE)),
    ("not one number per dimension", "scale_of_every_row", rows(BYTES, scale=np.ones((2, 3), np.float32), offset=WIDE)),
    ("nor codes with a codebook", "codes_without_codebook", rows(CODES)),
    ("codes of another codebook", "codes_past_the_codebook", rows(CODES + 1, codebook=WIDE[None])),
    ("codes of another codebook", "codebook_of_another_width", rows(CODES, codebook=np.ones((1, 5), np.float32))),
    ("codebook of the rows is not float32", "codebook_of_halves", rows(CODES, codebook=GOOD)),
    ("codebook of the rows is not float32", "codebook_of_nan", rows(CODES, codebook=WIDE[None] * np.float32(np.nan))),
    (
        "more than 1024 MB",
        "codes_that_grow",
        rows(np.zeros((2**16 + 1, 2**10), np.uint8), codebook=np.ones((1, 2**12), np.float32)),
    ),
    (NO_FILE, "past_the_end", raw(bytes(11))),
    (NO_FILE, "shape_past_the_end", raw(bytes(12), shape=[2, 2**40])),
    (NO_FILE, "trailing_bytes", raw(bytes(13))),
    (NO_FILE, "negative_shape", raw(bytes(12), shape=[-2, -3])),
    (NO_FILE, "shape_of_floats", raw(bytes(12), shape=[2.0, 3.0])),
    (NO_FILE, "shape_that_overflows", raw(bytes(12), shape=[2**32, 2**32])),
    (NO_FILE, "shape_of_zero_and_2_63", raw(b"", shape=[0, 2**63], data_offsets=[0, 0])),
    (NO_FILE, "shape_of_65_dimensions", raw(bytes(12), shape=[2, 3, *[1] * 63])),
    (NO_FILE, "unknown_type", raw(bytes(12), dtype="F17")),
    (NO_FILE, "type_with_a_line_break", raw(bytes(12), dtype="F\n16")),
    (NO_FILE, "type_without_numpy", raw(bytes(12), dtype="BF16")),
    (NO_FILE, "type_object", raw(bytes(12), dtype="O")),
    (NO_FILE, "turned_offsets", raw(bytes(12), data_offsets=[12, 0])),
    (NO_FILE, "negative_offsets", raw(bytes(12), data_offsets=[-12, 0])),
    (NO_FILE, "huge_offsets", raw(bytes(12), data_offsets=[2**63, 2**63 + 12])),
    (NO_FILE, "a_hole", raw(bytes(13), data_offsets=[1, 13])),
    (NO_FILE, "overlapping", two_arrays([0, 4], [2, 6], 6)),
    (NO_FILE, "the_same_bytes_twice", two_arrays([0, 4], [0, 4], 4)),
]


@pytest.mark.parametrize(("words", "data"), [pytest.param(w, d, id=name) for w, name, d in BANKS])
def test_a_bank_that_lies_is_refused_when_it_is_read(words: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / "site.evb").write_bytes(bank(data)(tmp_path))  # type: ignore[arg-type]
    read = read_bundle(tmp_path / "site.evb")
    attack = Attack(always(b""), BundleFormatError, words)
    refused(lambda: read.rows("spatial"), attack, Path(BANK))


# What the gate lets pass: chains of harmless operators that add up. The self-test's own process stops them.


def doubling(n: int) -> list[Any]:
    """image -> 2 ** n times as much, and back to one number."""
    steps = [node("Concat", [f"x{i}" if i else "image"] * 2, [f"x{i + 1}"], axis=0) for i in range(n)]
    return [*steps, node("ReduceMax", [f"x{n}"], ["most"], keepdims=0)]


def outer_product() -> list[Any]:
    return [
        node("Reshape", ["image", "column"], ["a"]),
        node("Transpose", ["a"], ["b"], perm=[1, 0]),
        node("MatMul", ["a", "b"], ["c"]),
        node("ReduceMax", ["c"], ["most"], keepdims=0),
    ]


@pytest.mark.parametrize(
    ("bomb", "holds"),
    [(doubling(2), True), (doubling(24), False), (outer_product(), False)],
    ids=["none", "doubling", "product"],
)
def test_a_bomb_that_the_gate_cannot_see_stays_in_the_process_of_the_self_test(
    bomb: list[Any], holds: bool, tiny_bundle: Path, tmp_path: Path
) -> None:
    model = onnx.load_model_from_string(tiny.encoder_model())
    model.graph.node[0].input[0] = "more"
    for made in reversed([*bomb, node("Mul", ["most", "zero"], ["none"]), node("Add", ["image", "none"], ["more"])]):
        model.graph.node.insert(0, made)
    model.graph.initializer.extend([constant("zero", 0.0, kind=np.float32), constant("column", -1, 1)])
    path = tmp_path / "bomb.evb"
    path.write_bytes(archive.pack(remade(read_bundle(tiny_bundle).members, {ENCODER: model.SerializeToString()})))
    read: Bundle = read_bundle(path)  # every operator is allowed, every hash and binding holds
    profile = load_profile("desktop_cpu", ["store.self_test_mb=600", "store.self_test_s=15"])
    if holds:
        check_in_child(path, read.id, profile)
        return
    with pytest.raises(SelfTestError, match="allocate memory|more memory than 600 MB") as caught:
        check_in_child(path, read.id, profile)
    assert str(caught.value).startswith(str(path)) and len(str(caught.value).splitlines()) == 1
