"""Memories of trained networks in banks: what is read is what the graph reads, the nearest items of it, or an error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from edge_vad.converters.checkpoint import load_network
from edge_vad.converters.maam import Maam
from edge_vad.converters.memory_banks import memory_rules, stored_items
from edge_vad.converters.memory_module import ItemMemory, MemoryModule, SparseMemory
from edge_vad.converters.network_build import Converted, network_settings
from edge_vad.converters.settings import BuildSettings
from edge_vad.converters.system import System
from edge_vad.converters.systems import open_system
from hypothesis import given
from hypothesis import strategies as st
from remade import remade
from tiny import Outcome

from edge_vad import archive, tensorfile
from edge_vad.backends import Backend
from edge_vad.banks import open_bank
from edge_vad.bundle import Bundle, read_bundle
from edge_vad.detector import Detector
from edge_vad.errors import BackendError, BundleFormatError, EdgeVadError, NetworkError, SelfTestError
from edge_vad.manifest import PREPROCESSING, canonical_json
from edge_vad.memory_read import Memory, MemoryRead, unit
from edge_vad.methods import Method
from edge_vad.networks import FRAMES, picture, planes
from edge_vad.plugins import load
from edge_vad.types import Float32, Frame
from edge_vad.vectors import Stored, compress

Cli = Callable[..., Outcome]
MEMORIES = {"maam": {"memory": 50}, "amco": {"appearance_memory": 10, "motion_memory": 10}}
BANKS = ["exact", pytest.param("hnsw", marks=pytest.mark.skipif("not __import__('importlib').util.find_spec('hnswlib')"))]
TOP_K = 4


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(3)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def bank_bundle(network_footage: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Bundle]:
    """By method: the bundle of its frozen network with the memories in banks, built once, with search graphs."""
    from edge_vad.cli import main

    folder = tmp_path_factory.mktemp("memory_read")
    (folder / "build.yaml").write_text(f"memory_read: bank\ntop_k: {TOP_K}\nindex: always\n")

    def built(method: str) -> Bundle:
        out = folder / f"{method}.evb"
        if not out.exists():
            more = ["--config", str(folder / "build.yaml")]
            assert main(tiny.network_arguments(method, network_footage, out, *more)) == 0
        return read_bundle(out)

    return built


def stored(items: Float32) -> Stored:
    """Items (N, c) as a bundle holds them."""
    lengths = np.linalg.norm(items, axis=1).astype(np.float32)
    return Stored({**compress(unit(items), "fp16"), "lengths": lengths})


def memory_of(rule: MemoryRead, items: Float32, bank: str = "exact") -> Memory:
    rows = stored(items)
    return Memory("some", rule, rows, open_bank(bank, rows))


def rounded(module: MemoryModule) -> MemoryModule:
    """With the items that fp16 leaves of its own."""
    rows = stored(module.items.detach().numpy())
    assert rows.lengths is not None
    module.items.data = torch.from_numpy(rows[:] * rows.lengths[:, None])
    return module


def modules() -> dict[str, MemoryModule]:
    """Memories of both kinds; the sparse one with items of different lengths."""
    sparse = SparseMemory(40, 8, temperature=0.1)
    sparse.items.data *= torch.linspace(0.2, 3, 40)[:, None]
    return {"sparse": sparse, "item": ItemMemory(40, 8)}


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("kind", modules())
def test_all_items_give_what_the_graph_reads(kind: str, bank: str) -> None:
    module = modules()[kind]
    maps = torch.randn(2, 8, 3, 4) * 5
    read = memory_of(module.rule(40), module.items.detach().numpy(), bank)(maps.numpy())
    with torch.no_grad():
        expected = rounded(module)(maps)[0].numpy()
    assert read.shape == expected.shape and read.dtype == np.float32
    np.testing.assert_allclose(read, expected, atol=1e-5)


@pytest.mark.parametrize("bank", BANKS)
@pytest.mark.parametrize("kind", modules())
def test_one_item_is_the_nearest_whatever_its_length(kind: str, bank: str) -> None:
    module = modules()[kind]
    items = module.items.detach().numpy()
    maps = np.random.default_rng(1).normal(size=(2, 8, 3, 4)).astype(np.float32)
    queries = unit(maps.transpose(0, 2, 3, 1).reshape(-1, 8))
    nearest = items[(queries @ unit(items).T).argmax(axis=1)]
    read = memory_of(module.rule(1), items, bank)(maps)[:, -8:]
    np.testing.assert_allclose(read.transpose(0, 2, 3, 1).reshape(-1, 8), nearest, atol=1e-3)  # fp16


def test_a_read_by_hand() -> None:
    items = np.array([[2, 0], [0.8, 0.6], [-1, 0]], dtype=np.float32)
    query = np.array([[[[3]], [[0]]]], dtype=np.float32)
    # Cosines 1 and 0.8; the shares of the two are e^0.2 : 1, or at a temperature of 0.1 e^2 : 1, 0.88 and 0.12.
    share = math.exp(0.2) / (1 + math.exp(0.2))
    found = memory_of(MemoryRead(2, threshold=1 / 3), items)(query)
    np.testing.assert_allclose(found.ravel(), [2 * share + 0.8 * (1 - share), 0.6 * (1 - share)], atol=1e-3)
    np.testing.assert_allclose(memory_of(MemoryRead(2, 0.1, 1 / 3), items)(query).ravel(), [2, 0], atol=1e-3)
    joined = memory_of(MemoryRead(2, 0.1, 1 / 3, joined=True), items)(query)
    np.testing.assert_allclose(joined.ravel(), [1, 0, 2, 0], atol=1e-3)


@given(st.integers(0, 2**31), st.integers(1, 29), st.sampled_from([0.03, 0.1, 1.0]))
def test_of_the_nearest_the_threshold_keeps_what_it_keeps_of_all(seed: int, k: int, temperature: float) -> None:
    generator = np.random.default_rng(seed)
    items = generator.normal(size=(30, 6)).astype(np.float32)
    queries = unit(generator.normal(size=(5, 6)).astype(np.float32))
    rule = MemoryRead(30, temperature, 1 / 30)
    whole, order = memory_of(rule, items).weights(queries)
    few, nearest = memory_of(replace(rule, k=k), items).weights(queries)
    assert np.array_equal(nearest, order[:, :k])
    assert np.all(few[whole[:, :k] > 1e-5] > 0)
    np.testing.assert_allclose(few.sum(axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("method", MEMORIES)
def test_the_whole_network_with_all_items_is_the_one_that_was_trained(
    method: str, bank_bundle: Callable[[str], Bundle]
) -> None:
    bundle = bank_bundle(method)
    system, trained = load_network(tiny.NETWORKS / f"{method}.safetensors")
    models = {role: bundle.model(role) for role in ("network", "decoder")}
    settings = BuildSettings(memory_read="bank", top_k=min(MEMORIES[method].values()))
    rules = {name: memory.rule(len(memory.items)) for name, memory in system.memories.items()}
    scene = network_settings(system, trained, (16, 16), rules)
    network = Converted(models, stored_items(system, settings.vectors)).network(scene)
    frames = np.stack([planes(picture(frame.image, trained.size)) for frame in moving_street()[: system.n_frames]])[None]
    found, outputs = network(frames), [run(system, frames)]
    for memory in system.memories.values():
        rounded(memory)
    outputs.append(run(system, frames))
    assert set(found) == {"maam": {"appearance", "motion"}, "amco": {"appearance"}}[method]
    for name in found:
        np.testing.assert_allclose(found[name], outputs[1][name], atol=1e-4)
        assert np.abs(found[name] - outputs[0][name]).mean() < 1e-3  # with the items of the training, which fp16 rounds


@torch.no_grad()  # type: ignore[untyped-decorator]
def run(system: System, frames: Float32) -> dict[str, Float32]:
    return {name: values[0].numpy() for name, values in system(torch.from_numpy(frames)).items()}


@pytest.mark.parametrize("method", MEMORIES)
def test_a_bundle_says_what_lies_in_it_and_works(method: str, bank_bundle: Callable[[str], Bundle]) -> None:
    bundle = bank_bundle(method)
    assert set(bundle.manifest.models) == {"network", "decoder"}
    assert {name: bank.rows for name, bank in bundle.manifest.banks.items()} == MEMORIES[method]
    assert set(bundle.preprocessing["memories"]) == set(MEMORIES[method])
    assert all(rule["k"] == TOP_K for rule in bundle.preprocessing["memories"].values())
    assert all(bundle.graph(name) for name in MEMORIES[method])
    detector = Detector.open(bundle)  # runs the self-test
    assert detector.bank_kinds == dict.fromkeys(MEMORIES[method], "exact")
    components = opened_method(bundle).golden(moving_street())["components"]
    assert np.all(components[-1] > 0) and np.isfinite(components[-1]).all()


@pytest.mark.parametrize("method", MEMORIES)
def test_another_bank_finds_the_same(method: str, bank_bundle: Callable[[str], Bundle]) -> None:
    pytest.importorskip("hnswlib")
    bundle = bank_bundle(method)
    opened = {bank: opened_method(bundle, bank) for bank in ("exact", "hnsw")}
    assert set(opened["hnsw"].bank_kinds().values()) == {"hnsw"}
    rows = {bank: runs.golden(moving_street())["components"] for bank, runs in opened.items()}
    np.testing.assert_allclose(rows["hnsw"], rows["exact"], rtol=5e-3)  # what the self-test allows


def moving_street() -> list[Frame]:
    """As many frames of the footage, apart as the networks saw them."""
    return tiny.clip_frames(14, seed=tiny.HELD_OUT)[::3]


def opened_method(bundle: Bundle, bank: str = "exact") -> Method:
    kind = load("methods", bundle.method, Method)  # type: ignore[type-abstract]
    return kind.open(bundle, load("backends", "onnxruntime", Backend), threads=1, device="cpu", bank=bank)


def test_int8_halves_pass_the_self_test(network_footage: Path, tmp_path: Path, cli: Cli) -> None:
    more = ["--memory-read", "bank", "--precision", "int8"]
    built = cli(*tiny.network_arguments("maam", network_footage, tmp_path / "int8.evb", *more))
    assert built.code == 0 and "banks: memory 50x" in built.out
    bundle = read_bundle(tmp_path / "int8.evb")
    assert bundle.preprocessing["memories"]["memory"]["k"] == 8  # where nothing was said
    for role in ("network", "decoder"):
        assert "QuantizeLinear" in bundle.manifest.models[role].operators
    Detector.open(bundle)


def with_items(bundle: Bundle, change: Callable[[dict[str, np.ndarray]], Mapping[str, np.ndarray]]) -> Bundle:
    """With other items in its memory, and all hashes and bindings made again."""
    file = bundle.manifest.banks["memory"].file
    arrays, said = tensorfile.load(bundle.members[file], file)
    return bundle_of(remade(bundle.members, {file: tensorfile.save({**arrays, **change(arrays)}, said)}))


def with_settings(bundle: Bundle, **memory: Any) -> Bundle:
    plain = bundle.preprocessing
    plain["memories"]["memory"] |= memory
    return bundle_of(remade(bundle.members, {PREPROCESSING: canonical_json(plain)}))


def bundle_of(members: Mapping[str, bytes]) -> Bundle:
    from edge_vad.bundle import checked
    from edge_vad.trust import UNCHECKED

    return checked(archive.unpack(archive.pack(members), "a test"), "a test", UNCHECKED)


FAULTS: dict[str, tuple[Callable[[Bundle], Bundle], type[EdgeVadError], str]] = {
    "exchanged items": (
        lambda b: with_items(b, lambda a: {"rows": np.ascontiguousarray(a["rows"][::-1])}),
        SelfTestError,
        "bank.memory differs",
    ),
    "other lengths": (lambda b: with_items(b, lambda a: {"lengths": 2 * a["lengths"]}), SelfTestError, "bank.memory"),
    "negative length": (lambda b: with_items(b, lambda a: {"lengths": -a["lengths"]}), BundleFormatError, "lengths of the"),
    "length nan": (
        lambda b: with_items(b, lambda a: {"lengths": a["lengths"] * np.float32(np.nan)}),
        BundleFormatError,
        "length",
    ),
    "a length too few": (
        lambda b: with_items(b, lambda a: {"lengths": a["lengths"][1:]}),
        BundleFormatError,
        "one number per row",
    ),
    "more than there are": (lambda b: with_settings(b, k=51), BundleFormatError, "50 items, of which 51 are to be read"),
    "none": (lambda b: with_settings(b, k=0), BundleFormatError, r"k must lie in 1\.\."),
    "another k": (lambda b: with_settings(b, k=5), SelfTestError, "settings.network differs"),
    "another temperature": (lambda b: with_settings(b, temperature=0.06), SelfTestError, "settings.network differs"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_not_the_memory_that_was_built_is_refused(fault: str, bank_bundle: Callable[[str], Bundle]) -> None:
    made, kind, said = FAULTS[fault]
    bundle = made(bank_bundle("maam"))
    with pytest.raises(kind, match=said) as refused:
        Detector.open(bundle)
    assert "\n" not in str(refused.value)


def test_a_bank_without_lengths_or_without_its_memory_is_refused(bank_bundle: Callable[[str], Bundle]) -> None:
    bundle = bank_bundle("maam")
    file = bundle.manifest.banks["memory"].file
    arrays, said = tensorfile.load(bundle.members[file], file)
    bare = remade(bundle.members, {file: tensorfile.save({"rows": arrays["rows"]}, said)})
    with pytest.raises(BundleFormatError, match="'memory' has no lengths"):
        opened_method(bundle_of(bare))
    plain = {**bundle.preprocessing, "memories": {}}
    with pytest.raises(BundleFormatError, match=r"needs the banks \[\], the bundle has \['memory'\]"):
        opened_method(bundle_of(remade(bundle.members, {PREPROCESSING: canonical_json(plain)})))


def test_queries_of_another_width_or_of_no_numbers_are_refused(bank_bundle: Callable[[str], Bundle]) -> None:
    with pytest.raises(BackendError, match="queries of 5 numbers to the memory 'some' of 4"):
        memory_of(MemoryRead(1), np.eye(4, dtype=np.float32))(np.ones((1, 5, 2, 2), np.float32))
    bundle = bank_bundle("maam")
    network = opened_method(bundle)._network  # type: ignore[attr-defined]
    with pytest.raises(BackendError, match="'memory'"):
        network.memories({"memory": np.full((1, 52, 4, 6), np.nan, np.float32)})
    with pytest.raises(BackendError, match="'memory'"):
        network.memories({FRAMES: np.zeros((1, 52, 4, 6), np.float32)})


@pytest.mark.parametrize(
    ("method", "more", "code", "said"),
    [
        ("maam", ["--top-k", "4"], 1, "set memory_read to bank"),
        ("maam", ["--memory-read", "bank", "--top-k", "0"], 1, "top_k must lie in 1"),
        ("maam", ["--memory-read", "bank", "--top-k", "51"], 1, "--top-k 51: memory has 50 items"),
        ("amco", ["--memory-read", "bank", "--top-k", "11"], 1, "--top-k 11: appearance_memory has 10 items"),
        ("desd", ["--memory-read", "bank"], 1, "no memory that a bank could search: leave --memory-read out"),
        ("maam", ["--memory-read", "disk"], 2, "invalid choice: 'disk'"),
    ],
)
def test_flags_that_do_not_fit_are_refused_on_one_line(
    method: str, more: list[str], code: int, said: str, network_footage: Path, tmp_path: Path, cli: Cli
) -> None:
    ended = cli(*tiny.network_arguments(method, network_footage, tmp_path / "none.evb", *more))
    assert ended.code == code and said in ended.err.splitlines()[-1]
    assert not (tmp_path / "none.evb").exists()


def test_videopatchcore_has_no_memory_to_choose(footage: Path, tiny_encoder: Path, tmp_path: Path, cli: Cli) -> None:
    ended = cli(*tiny.build_arguments(footage, tmp_path / "none.evb", tiny_encoder, "--memory-read", "bank"))
    assert ended.code == 2 and "belongs to networks with a memory (maam, amco)" in ended.err.splitlines()[-1]


def test_a_network_without_its_memory_is_refused_too() -> None:
    for method in MEMORIES:
        bare = open_system(method, {"width": 0.1, "memory": False})
        assert memory_rules(bare, BuildSettings()) == {}
        with pytest.raises(NetworkError, match="no memory"):
            memory_rules(bare, BuildSettings(memory_read="bank"))


def test_the_halves_of_a_system_are_the_whole() -> None:
    """In training too, where the memory of MAAM-Net also says what it chose."""
    for method in MEMORIES:
        system = open_system(method, {"width": 0.1}).train()
        if isinstance(system, Maam):
            system.warm_up.zero_()
        frames = torch.rand(2, system.n_frames, 3, 32, 48) * 2 - 1
        whole, found = system(frames), system.encode(frames)
        assert set(system.memories) == set(MEMORIES[method]) <= set(found)
        read = {name: memory(found[name])[0] for name, memory in system.memories.items()}
        halves = system.decode(found | read)
        assert list(halves) == list(whole) and all(torch.allclose(halves[n], whole[n], atol=1e-5) for n in whole)
