"""The trained networks' equations by hand, their shapes, their options."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from edge_vad.converters.amco import Amco
from edge_vad.converters.blocks import Decoder, Encoder, channels, convolution, deconvolution
from edge_vad.converters.desd import OUTLIERS, RECENT, Desd
from edge_vad.converters.implants import SEEN
from edge_vad.converters.maam import Maam
from edge_vad.converters.memory_module import ItemMemory, SparseMemory, latent_loss, maps_of, rows_of, sparse_loss
from edge_vad.converters.stpag import CELL, STRANGE, discrimination
from edge_vad.converters.system import System
from edge_vad.converters.systems import SYSTEMS, complete_options, open_system
from torch import Tensor

from edge_vad.errors import EdgeVadError, PluginError, ProfileError
from edge_vad.networks import Target

SIZE = (32, 48)
PARTS = {
    "maam": {"appearance", "motion", "energy", "sparse", "latent"},
    "amco": {"appearance", "motion", "appearance_compact", "appearance_separate", "motion_compact", "motion_separate"},
    "desd": {"intensity", "rgb", "compact"},
    "stpag": {"appearance", "motion", "energy", "semantic"},
}
ABLATIONS = {
    ("maam", "memory"): {"sparse", "latent"},
    ("maam", "motion"): {"motion", "energy"},
    ("amco", "memory"): {"appearance_compact", "appearance_separate", "motion_compact", "motion_separate"},
    ("amco", "motion"): {"motion", "motion_compact", "motion_separate"},
    ("amco", "skips"): set(),
    ("desd", "reconstruction"): set(),
    ("desd", "prediction"): set(),
    ("desd", "erasure"): set(),
    ("desd", "compact"): {"compact"},
    ("stpag", "discriminator"): {"semantic"},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    yield
    torch.set_num_threads(before)


def rows(*values: tuple[float, ...]) -> Tensor:
    return torch.tensor(values, dtype=torch.float32)


def close(found: Tensor, *expected: Any) -> bool:
    return np.allclose(found.detach().numpy(), np.array(expected), atol=1e-4)


def opened(method: str, **options: Any) -> System:
    """A tiny network in training mode, ready to read its memory."""
    system = open_system(method, {"width": 0.1, **options}).train()
    if isinstance(system, Maam):
        system.warm_up.zero_()
    return system


def window(system: System, batch: int = 2) -> Tensor:
    return torch.rand(batch, system.n_frames, 3, *SIZE) * 2 - 1


def test_a_sparse_memory_is_read_by_hand() -> None:
    memory = SparseMemory(3, 2, temperature=1.0)
    memory.items.data = rows((1, 0), (0.8, 0.6), (-1, 0))
    # Cosines of (2, 0) are 1, 0.8, -1; their softmax 0.5118, 0.4190, 0.0693; the last is under 1/3.
    kept = 0.5118 / (0.5118 + 0.4190)
    assert close(memory.weights(rows((2, 0))), [kept, 1 - kept, 0])
    read, weights = memory(rows((2, 0)).reshape(1, 2, 1, 1))
    assert weights.shape == (1, 3) and close(read.flatten(), kept + 0.8 * (1 - kept), 0.6 * (1 - kept))
    # A quarter of the temperature: exp(4), exp(3.2), exp(-4); 0.6899 and 0.3100, of which one is above 1/3.
    memory._temperature = 0.25
    assert close(memory.weights(rows((2, 0))), [1, 0, 0])


def test_the_temperature_of_a_sparse_memory_sharpens_its_weights() -> None:
    memory = SparseMemory(3, 2, temperature=1.0)
    memory.items.data = rows((1, 0), (0.96, 0.28), (-1, 0))
    weights = {}
    for temperature in (1.0, 0.2):
        memory._temperature = temperature
        weights[temperature] = memory.weights(rows((5, 0)))[0]
    assert close(weights[0.2][0] / weights[0.2][1], math.exp(0.04 / 0.2)) and weights[0.2][2] == 0
    assert close(weights[1.0][0] / weights[1.0][1], math.exp(0.04))


def test_a_sparse_memory_starts_from_the_farthest_features() -> None:
    memory = SparseMemory(3, 1, temperature=1.0)
    memory.fill(rows((0,), (1,), (10,), (4,)))
    assert close(memory.items, [0], [10], [4])  # 4 is 4 from the nearest of 0 and 10, 1 is 1


def test_the_losses_of_a_sparse_memory() -> None:
    assert sparse_loss(rows((0.5, 0.5), (1, 0))).item() == pytest.approx(math.log(2) / 2, abs=1e-5)
    same, orthogonal, opposite = (rows(v).reshape(1, 2, 1, 1) for v in ((1, 1), (1, -1), (-2, -2)))
    for read, expected in ((same, 0.9), (orthogonal, 0.0), (opposite, 0.9)):
        assert latent_loss(read, same, 0.1).item() == pytest.approx(expected, abs=1e-5)


def items() -> ItemMemory:
    memory = ItemMemory(2, 2)
    memory.items = rows((1, 0), (0, 1))
    return memory


def test_an_item_memory_is_read_by_hand() -> None:
    found, queries = items()(rows((3, 4)).reshape(1, 2, 1, 1))
    share = math.exp(0.6) / (math.exp(0.6) + math.exp(0.8))
    assert close(queries, [0.6, 0.8]) and close(found.flatten(), 0.6, 0.8, share, 1 - share)


def test_an_item_memory_moves_to_its_queries_by_hand() -> None:
    memory = items()
    memory.update(rows((1, 0), (0.6, 0.8), (0, 1)))
    # The first query is the only one of the first item. The others' shares of the second are exp(0.8) and exp(1), of which
    # the second is the largest.
    share = math.exp(0.8) / math.exp(1)
    moved = np.array([0.6 * share, 1 + 0.8 * share + 1])
    assert close(memory.items, [1, 0], moved / np.linalg.norm(moved))


def test_an_item_that_no_query_chooses_stays() -> None:
    memory = items()
    memory.update(rows((1, 0), (0.8, 0.6)))
    assert close(memory.items[1], 0, 1) and not close(memory.items[0], 1, 0)


def test_the_losses_of_an_item_memory() -> None:
    queries = rows((1, 0), (0.6, 0.8))
    near, far = math.sqrt(0.6**2 + 0.2**2), math.sqrt(0.4**2 + 0.8**2)
    assert items().compactness(queries).item() == pytest.approx(near**2 / 4, abs=1e-5)  # mean over two rows of two
    assert items().separateness(queries).item() == pytest.approx((0 + near - far + 1) / 2, abs=1e-4)


def test_rows_and_maps_are_inverse() -> None:
    maps = torch.rand(2, 5, 3, 4)
    assert rows_of(maps).shape == (24, 5) and torch.equal(rows_of(maps)[5], maps[0, :, 1, 1])
    assert torch.equal(maps_of(rows_of(maps), maps), maps)


def test_blocks_have_the_shapes_and_widths_that_they_say() -> None:
    assert channels((64, 128, 512), 1.0) == [64, 128, 512] and channels((64, 128, 512), 0.3) == [20, 40, 152]
    assert channels((64,), 0.001) == [4]
    x = torch.rand(2, 6, 16, 24)
    assert convolution(6, 8)(x).shape == (2, 8, 16, 24) and convolution(6, 8, 2)(x).shape == (2, 8, 8, 12)
    assert deconvolution(6, 4)(x).shape == (2, 4, 32, 48)
    maps = Encoder(6, (4, 8, 12))(x)
    assert [m.shape for m in maps] == [(2, 4, 16, 24), (2, 8, 8, 12), (2, 12, 4, 6)]
    assert Decoder(12, (8, 4))(maps[-1]).shape == (2, 3, 16, 24)
    assert Decoder(12, (8, 4), skips=(8, 4))(maps[-1], maps[-2::-1]).shape == (2, 3, 16, 24)


def test_targets_are_frames_or_what_changed() -> None:
    frames = torch.arange(4, dtype=torch.float32).square().reshape(1, 4, 1, 1, 1).expand(1, 4, 3, 2, 2)  # 0 1 4 9
    frames = torch.where(torch.arange(4).reshape(1, 4, 1, 1, 1) == 2, -frames, frames)  # 0 1 -4 9
    for of in (frames, frames.numpy()):
        for target, expected in (
            (Target(1, 3), [1, -4]),
            (Target(1, 4, "difference"), [1, -5, 13]),
            (Target(1, 4, "change"), [1, 5, 13]),
        ):
            wanted = target.of(of)
            assert wanted.shape == (1, len(expected), 3, 2, 2) and wanted[0, :, 0, 0, 0].tolist() == expected
    with pytest.raises(ValueError, match="start"):
        Target(0, 1, "difference")


@pytest.mark.parametrize("method", SYSTEMS)
def test_outputs_and_losses_of_every_network(method: str) -> None:
    system = opened(method)
    frames = window(system)
    found = system(frames)
    assert set(found) == {*system.targets, *system.odds}
    for name, target in system.targets.items():
        assert found[name].shape == (2, target.stop - target.start, 3, *SIZE) == system.wanted(name, frames).shape
    assert all((found[name] > 0).all() and found[name].ndim == 4 for name in system.odds)
    parts = system.losses(frames, found)
    assert set(parts) == PARTS[method]
    assert all(part.shape == () and part.isfinite() for part in parts.values())


@pytest.mark.parametrize("method", SYSTEMS)
def test_gradients_reach_every_parameter(method: str) -> None:
    system = opened(method)
    frames = window(system)
    sum(system.losses(frames, system(frames)).values()).backward()  # type: ignore[union-attr]
    reached = {name for name, parameter in system.named_parameters() if parameter.grad is not None and parameter.grad.any()}
    assert reached == {name for name, _ in system.named_parameters()}


@pytest.mark.parametrize(("method", "option"), ABLATIONS)
def test_every_part_can_be_left_out(method: str, option: str) -> None:
    whole, system = opened(method, **{option: True}), opened(method, **{option: False})
    frames = window(system)
    assert set(system.losses(frames, system(frames))) == PARTS[method] - ABLATIONS[method, option]
    assert set(system.eval()(frames)) <= {*system.targets, *system.odds}
    n_whole, n = (sum(p.numel() for p in s.parameters()) + sum(b.numel() for b in s.buffers()) for s in (whole, system))
    assert n < n_whole or option == "erasure"


@pytest.mark.parametrize("length", [4, 5, 6, 16])
def test_the_clips_of_stpag_may_have_any_length(length: int) -> None:
    system = opened("stpag", length=length)
    assert system.n_frames == length + 1
    frames = window(system)
    found = system(frames)
    for name in ("appearance", "motion"):
        assert found[name].shape == (2, length, 3, *SIZE) == system.wanted(name, frames).shape
    assert sum(system.losses(frames, found).values()).isfinite()  # type: ignore[union-attr]


@pytest.mark.parametrize(("unseen", "least", "newest"), [(0, 1e-5, 2), (1, 0, 1), (2, 0, 2)])
def test_stpag_draws_the_newest_frames_without_having_seen_them(unseen: int, least: float, newest: int) -> None:
    system = opened("stpag", unseen=unseen).eval()
    assert {target.newest for target in system.targets.values()} == {newest}
    frames = window(system)
    changed = frames.clone()
    changed[:, -max(1, unseen) :] *= -1
    found, again = system(frames), system(changed)
    for name in ("appearance", "motion"):
        off = (found[name] - again[name]).abs().max().item()
        assert off > least if least else off == 0, name
    assert not torch.equal(found["semantic"], again["semantic"])


def test_the_discriminator_of_stpag_judges_the_places_of_the_newest_frames_by_their_brightness() -> None:
    system = opened("stpag").eval()
    frames = window(system)
    odds = system(frames)["semantic"]
    assert odds.shape == (2, 1, SIZE[0] // CELL, SIZE[1] // CELL)
    for part, seen in ((slice(None, -SEEN), False), (slice(-SEEN, None), True)):
        again = frames.clone()
        again[:, part] *= -1
        assert torch.equal(system(again)["semantic"], odds) != seen
    assert torch.allclose(system(frames.flip(2))["semantic"], odds, atol=1e-5), "colours swapped"


def test_odds_of_stpag_are_numbers_in_half_precision() -> None:
    judge = opened("stpag").discriminator.eval()  # type: ignore[union-attr]
    for scale in (1e4, -1e4):
        judge.layers[-1].bias.data.fill_(scale)
        odds = judge(torch.zeros(1, SEEN, *SIZE)).half()
        assert odds.isfinite().all() and (odds > 0).all()


def test_the_discrimination_counts_cells_of_which_it_is_known_what_they_are() -> None:
    strange = torch.zeros(1, CELL, 3 * CELL)
    strange[..., CELL : 2 * CELL] = 0.5  # made up
    strange[..., 2 * CELL :] = sum(STRANGE) / 2  # nobody says
    odds = torch.tensor([0.25, 3.0, 1e4]).view(1, 1, 1, 3)
    expected = (math.log(1.25) + math.log(4 / 3)) / 2
    assert discrimination(odds, strange).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("method", "frame"), [("maam", 0), ("amco", 2)])
def test_the_appearance_loss_is_the_squared_error(method: str, frame: int) -> None:
    system = opened(method)
    frames = window(system)
    found = system(frames)
    expected = (found["appearance"][:, 0] - frames[:, frame]).square().mean().item()
    assert system.losses(frames, found)["appearance"].item() == pytest.approx(expected)


def test_the_motion_loss_of_maam_is_twice_the_absolute_error_of_the_change() -> None:
    system = opened("maam")
    frames = window(system)
    found = system(frames)
    wanted = (frames[:, 1] - frames[:, 0]).abs()
    expected = 2 * (found["motion"][:, 0] - wanted).abs().mean().item()
    assert system.losses(frames, found)["motion"].item() == pytest.approx(expected, rel=1e-5)


def test_the_memory_of_maam_is_filled_from_what_it_saw_and_then_read() -> None:
    system = open_system("maam", {"width": 0.1, "n_items": 4}).train()
    assert isinstance(system, Maam) and system.memory is not None
    system.warm_up.fill_(2)
    frames, random = window(system), system.memory.items.clone()
    for last in (False, True):
        assert not {"sparse", "latent"} & set(system.losses(frames, system(frames)))
        assert torch.equal(system.memory.items, random)
        features = rows_of(system.encoder(frames[:, 0])[-1])
        system.step_done()
        assert torch.equal(system.memory.items, random) != last
    apart = torch.cdist(system.memory.items, features, compute_mode="donot_use_mm_for_euclid_dist")
    assert apart.amin(dim=1).max() < 1e-3  # each is a feature that was seen
    assert {"sparse", "latent"} <= set(system.losses(frames, system(frames)))


def test_the_items_of_amco_move_after_a_step() -> None:
    system = opened("amco")
    assert isinstance(system, Amco) and system.appearance_memory is not None
    before = system.appearance_memory.items.clone()
    system(window(system))
    assert torch.equal(system.appearance_memory.items, before)
    system.step_done()
    assert not torch.equal(system.appearance_memory.items, before)
    assert close(system.appearance_memory.items.norm(dim=1), *[1.0] * len(before))


def remember(system: Desd, errors: list[list[float]]) -> None:
    """A batch of one frame whose picture is off by that much, in every channel."""
    picture = torch.tensor(errors).sqrt().expand(1, 1, 3, 2, 2)
    system._remember(picture, torch.zeros_like(picture))


def test_what_was_easy_in_all_batches_is_erased_in_the_next_epoch() -> None:
    system = opened("desd")
    assert isinstance(system, Desd)
    remember(system, [[0, 0], [0, 4]])  # above the mean of 1: the last
    remember(system, [[4, 0], [0, 0]])
    remember(system, [[0, 1], [1, 1]])  # above 0.75: all but the first
    assert system.kept.flatten().tolist() == [1]  # not before the epoch's end
    system._masks.pop()
    system.epoch_done()
    assert system.kept.reshape(2, 2).tolist() == [[1, 0], [0, 1]]


def test_a_frame_of_a_batch_that_was_hard_keeps_its_pixels() -> None:
    system = opened("desd")
    assert isinstance(system, Desd)
    picture = torch.zeros(2, 1, 3, 1, 3)
    picture[0, :, :, 0, 0], picture[1, :, :, 0, 1] = 1, 1
    system._remember(picture, torch.zeros_like(picture))
    system.epoch_done()
    assert system.kept.flatten().tolist() == [1, 1, 0]


def test_only_the_recent_batches_decide() -> None:
    system = opened("desd")
    assert isinstance(system, Desd)
    remember(system, [[9, 0], [0, 0]])
    for _ in range(RECENT + 1):
        remember(system, [[0, 0], [0, 9]])
    system.epoch_done()
    assert system.kept.reshape(2, 2).tolist() == [[0, 0], [0, 1]]


def test_erased_pixels_are_hidden_in_training_and_not_later() -> None:
    system = opened("desd", erasure=True)
    assert isinstance(system, Desd) and system.reconstruction is not None
    seen: list[Tensor] = []
    system.reconstruction.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    frames = window(system)
    system.kept = torch.ones(1, 1, 1, *SIZE)
    system.kept[..., :5] = 0
    system(frames)
    system.eval()(frames)
    assert not seen[0][..., :5].any() and torch.equal(seen[0][..., 5:], frames[:, 4, ..., 5:])
    assert torch.equal(seen[1], frames[:, 4])


def test_a_tenth_of_the_frames_lies_outside_the_sphere() -> None:
    system = opened("desd")
    assert isinstance(system, Desd)
    squared = torch.rand(200) * 9
    system._distances = [squared[:150], squared[150:]]
    system.epoch_done()
    assert (squared > system.radius.square()).float().mean().item() == pytest.approx(OUTLIERS, abs=0.006)


def test_the_soft_boundary_by_hand() -> None:
    system = opened("desd")
    assert isinstance(system, Desd)
    system.centre, system.radius = torch.tensor([0.0, 0.0]), torch.tensor([2.0])
    # Squared distances 25 and 1, radius squared 4: 4 + ((25 - 4) + 0) / 2 / 0.1.
    assert system._compactness(rows((3, 4), (0, 1))).item() == pytest.approx(4 + 21 / 2 / OUTLIERS)


def test_the_centre_is_the_mean_of_the_first_batch_and_never_near_zero() -> None:
    system = opened("desd")
    assert isinstance(system, Desd)
    system._compactness(rows((1, 0.05, 0, -0.02), (3, 0.05, 0, -0.02)))
    assert close(system.centre, 2, 0.1, 0.1, -0.1)
    system._compactness(rows((9, 9, 9, 9)))
    assert close(system.centre, 2, 0.1, 0.1, -0.1)


def test_what_desd_gathers_in_an_epoch_can_be_taken_along() -> None:
    system, other = opened("desd"), opened("desd")
    frames = window(system)
    for _ in range(3):
        system.losses(frames, system(frames))
    other.restore(system.transient())
    for one in (system, other):
        one.epoch_done()
    assert torch.equal(system.kept, other.kept) and torch.equal(system.radius, other.radius) and system.radius > 0


@pytest.mark.parametrize(
    ("method", "options", "kind", "said"),
    [
        ("mam", {}, PluginError, "did you mean 'maam'"),
        ("maam", {"memry": False}, ProfileError, "did you mean 'memory'"),
        ("maam", {"memory": 3}, ProfileError, "memory: expected bool, found 3"),
        ("maam", {"n_items": 2.5}, ProfileError, "n_items: expected int"),
        ("amco", {"n_items": 1}, ProfileError, r"n_items must lie in 2\.\."),
        ("amco", {"width": 0}, ProfileError, "width must lie in"),
        ("stpag", {"unseen": 4}, ProfileError, r"unseen must lie in 0\.\.3, not 4"),
        ("stpag", {"length": 3}, ProfileError, r"length must lie in 4\.\.32, not 3"),
        ("maam", {"sparse": math.nan}, ProfileError, "sparse must lie in"),
        ("maam", {"sparse": -1}, ProfileError, "sparse must lie in"),
        ("desd", {"reconstruction": False, "prediction": False}, ProfileError, "cannot both be off"),
    ],
)
def test_what_is_no_method_or_option_is_refused(
    method: str, options: dict[str, Any], kind: type[EdgeVadError], said: str
) -> None:
    with pytest.raises(kind, match=said) as refused:
        open_system(method, options)
    assert "\n" not in str(refused.value)


def test_options_are_complete_and_of_their_type() -> None:
    complete = complete_options("amco", {"width": 1, "memory": False})
    assert complete == {"width": 1.0, "n_items": 10, "memory": False, "motion": True, "skips": True}
    assert type(complete["width"]) is float
