"""The heads: a contract over each, the paper's shapes, and checkpoints that can't lie."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from ser_embed.encoders.graph import pool_states
from ser_embed.errors import HeadError
from ser_embed.heads.checkpoint import build_head, load_head, read_card, save_head, sealed
from ser_embed.heads.kinds import HEADS

# Head, shape of one clip, pooled.
CASES: list[tuple[str, tuple[int, ...], bool]] = [
    ("conv", (149, 32), False),
    ("conv", (44, 32), False),
    ("conv", (60, 70), False),
    ("temporal", (149, 32), False),
    ("temporal", (7, 5), False),
    ("mlp", (20, 12), False),
    ("mlp", (1, 12), True),
    ("stats", (20, 12), False),
    ("stats", (4, 20, 12), False),
    ("stats", (4, 24), True),
    ("layers", (4, 20, 12), False),
    ("layers", (4, 12), True),
    ("cnn", (298, 64), False),
    ("cnn", (7, 5), False),
]
each_case = pytest.mark.parametrize(("name", "shape", "pooled"), CASES)


def clips(shape: tuple[int, ...], n: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def all_frames(shape: tuple[int, ...], n: int = 4) -> torch.Tensor:
    return torch.full((n,), shape[-2])


def test_the_cases_are_every_head() -> None:
    assert {name for name, _, _ in CASES} == set(HEADS)


# --- the contract ----------------------------------------------------------------------------


@each_case
def test_output_is_log_probabilities(name: str, shape: tuple[int, ...], pooled: bool) -> None:
    for n_classes in (2, 5):
        head = build_head(name, shape, n_classes, pooled, seed=0)
        for module in (head.train(), head.eval()):
            log_probs = module(clips(shape), all_frames(shape))
            assert log_probs.shape == (4, n_classes)
            assert log_probs.dtype == torch.float32
            torch.testing.assert_close(log_probs.exp().sum(1), torch.ones(4))


@each_case
def test_gradient_reaches_every_parameter(name: str, shape: tuple[int, ...], pooled: bool) -> None:
    head = build_head(name, shape, 3, pooled, seed=0).train()
    # Weights of the classes, since the sum of all gradients of a softmax is 0.
    (head(clips(shape, 8), all_frames(shape, 8)) * torch.tensor([1.0, 2.0, -1.5])).sum().backward()
    for parameter_name, parameter in head.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
        # A bias before a batch norm has none but rounding.
        if "weight" in parameter_name:
            assert parameter.grad.abs().max() > 0, parameter_name


@each_case
def test_a_clip_alone_gets_what_it_gets_in_a_batch(
    name: str, shape: tuple[int, ...], pooled: bool
) -> None:
    head = build_head(name, shape, 3, pooled, seed=0).eval()
    batch, frames = clips(shape), all_frames(shape)
    with torch.inference_mode():
        together = head(batch, frames)
        alone = torch.cat([head(batch[i : i + 1], frames[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, together, atol=1e-5, rtol=1e-5)


@each_case
def test_seeds_make_the_weights_and_nothing_else_changes(
    name: str, shape: tuple[int, ...], pooled: bool
) -> None:
    state = torch.get_rng_state()
    first = build_head(name, shape, 3, pooled, seed=5).state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    again = build_head(name, shape, 3, pooled, seed=5).state_dict()
    other = build_head(name, shape, 3, pooled, seed=6).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@each_case
def test_an_ensemble_gives_its_members_mean_probability(
    name: str, shape: tuple[int, ...], pooled: bool, tmp_path: Path
) -> None:
    ensemble = build_head(name, shape, 3, pooled, seed=5, members=3).eval()
    alone = [build_head(name, shape, 3, pooled, seed=5 + k).eval() for k in range(3)]
    batch, frames = clips(shape), all_frames(shape)
    with torch.inference_mode():
        mean = torch.stack([head(batch, frames).exp() for head in alone]).mean(0)
        torch.testing.assert_close(ensemble(batch, frames).exp(), mean)
    told = {"name": name, "shape": list(shape), "pooled": pooled, "members": 3}
    save_head(tmp_path, ensemble, {"head": told, "classes": ["a", "b", "c"], "temperature": 1.0})
    loaded, _ = load_head(tmp_path)
    with torch.inference_mode():
        assert torch.equal(loaded(batch, frames), ensemble(batch, frames))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("mlp", (40, 12)), ("temporal", (40, 12)), ("temporal", (149, 8)), ("layers", (3, 40, 12)),
        ("cnn", (298, 64)), ("cnn", (41, 12)),
    ],
)  # fmt: skip
def test_what_lies_beyond_a_clips_frames_changes_nothing(name: str, shape: tuple[int, ...]) -> None:
    head = build_head(name, shape, 3, False, seed=1)
    head.train()(clips(shape), all_frames(shape))  # batch norm with statistics of its own
    head.eval()
    frames = torch.tensor([shape[-2], 30, 17, 1])
    batch = clips(shape, seed=2)
    for i, n in enumerate(frames):
        batch[i, ..., n:, :] = 0
    garbage = batch.clone()
    for i, n in enumerate(frames):
        garbage[i, ..., n:, :] = 1e4
    with torch.inference_mode():
        clean = head(batch, frames)
        torch.testing.assert_close(head(garbage, frames), clean, atol=1e-5, rtol=1e-5)
        for i, n in enumerate(frames):  # and the clip without any padding is the same clip
            own = batch[i : i + 1, ..., :n, :]
            torch.testing.assert_close(
                head(own, frames[i : i + 1]), clean[i : i + 1], atol=1e-5, rtol=1e-5
            )


# --- the shapes that the comments and the paper state ----------------------------------------


def outputs_of(head: nn.Module, kinds: tuple[type[nn.Module], ...]) -> list[tuple[int, ...]]:
    """Run one clip and return the output shape of each module of some kinds, in order."""
    shapes: list[tuple[int, ...]] = []
    for module in head.modules():
        if isinstance(module, kinds):
            module.register_forward_hook(lambda _m, _i, out: shapes.append(tuple(out.shape[1:])))
    return shapes


def test_conv_is_the_papers() -> None:
    head = build_head("conv", (149, 32), 3, False, seed=0).eval()
    assert sum(p.numel() for p in head.parameters()) == 3_137_699
    count = {
        kind: sum(isinstance(m, kind) for m in head.modules())
        for kind in (nn.Conv2d, nn.MaxPool2d, nn.BatchNorm2d, nn.Dropout)
    }
    assert count == {nn.Conv2d: 8, nn.MaxPool2d: 4, nn.BatchNorm2d: 8, nn.Dropout: 1}
    pools = outputs_of(head, (nn.MaxPool2d,))
    into_linear: list[tuple[int, ...]] = []
    head.hidden.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _m, inputs: into_linear.append(tuple(inputs[0].shape[1:]))
    )
    head(clips((149, 32), 1), torch.tensor([149]))
    assert pools[1] == (32, 34, 5)  # after the second block
    assert pools[3] == (128, 8, 1)
    assert into_linear == [(1024,)]


@pytest.mark.parametrize("shape", [(44, 32), (60, 70), (149, 32), (249, 45), (333, 768)])
def test_conv_averages_other_images_down_to_the_papers(shape: tuple[int, ...]) -> None:
    head = build_head("conv", shape, 3, False, seed=0).eval()
    into_linear: list[torch.Tensor] = []
    head.hidden.register_forward_pre_hook(  # type: ignore[union-attr]
        lambda _m, inputs: into_linear.append(inputs[0])
    )
    batch = clips(shape, 2)
    head(batch, torch.tensor([shape[0]] * 2))
    image = head.blocks(batch.unsqueeze(1))  # type: ignore[operator]
    wanted = nn.functional.adaptive_avg_pool2d(image, (8, 1)).flatten(1)
    if image.shape[2:] == (8, 1):  # the paper's own: nothing may change
        assert torch.equal(into_linear[0], wanted)
    torch.testing.assert_close(into_linear[0], wanted)


def test_temporal_halves_time_three_times() -> None:
    head = build_head("temporal", (149, 32), 3, False, seed=0).eval()
    times = outputs_of(head, (nn.Conv1d,))
    head(clips((149, 32), 1), torch.tensor([149]))
    assert [shape[1] for shape in times] == [75, 75, 38, 38, 19, 19, 19, 19]
    assert sum(isinstance(m, nn.Conv1d) for m in head.modules()) == 8


def test_the_mean_over_time_commutes_with_the_sum_over_layers() -> None:
    """So features pooled at extraction, (L, D), lose nothing that a weighted mean could use."""
    batch = clips((4, 20, 12))
    weights = torch.tensor([0.3, -1.0, 2.0, 0.1])
    seen = {}
    for pooled, features in ((False, batch), (True, batch.mean(2))):
        head = build_head("layers", tuple(features.shape[1:]), 3, pooled, seed=0).eval()
        head.weights.data = weights.clone()  # type: ignore[union-attr, operator]

        def keep(_m: nn.Module, inputs: Any, pooled: bool = pooled) -> None:
            seen[pooled] = inputs[0]

        head.frame.register_forward_pre_hook(keep)  # type: ignore[union-attr]
        head(features, torch.full((4,), 20))
    torch.testing.assert_close(seen[False].mean(1), seen[True])
    by_hand = sum(w * batch[:, i].mean(1) for i, w in enumerate(weights.softmax(0)))
    torch.testing.assert_close(seen[True], by_hand)


def test_statistics_are_alike_at_extraction_and_in_the_head() -> None:
    """So a store of (L, 2 D) a clip serves as one of all frames does."""
    states = torch.randn(6, 3, 20, 5, generator=torch.Generator().manual_seed(0))
    pooled = pool_states(states, "stats")
    seen = []
    for features in (states, pooled):
        head = build_head("stats", tuple(features.shape[1:]), 3, features is pooled, seed=0)
        head.standardise.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
        head.eval()(features, torch.full((6,), 20))
    frames, clip = seen
    # One has all means before all deviations, the other layer by layer.
    torch.testing.assert_close(frames.view(6, 2, 3, 5).transpose(1, 2).flatten(1), clip,
                               atol=1e-4, rtol=1e-4)  # fmt: skip


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shape", "pooled", "fitting"),
    [
        ("conv", (4, 149, 32), False, "stats, layers"),
        ("temporal", (4, 149, 32), False, "stats, layers"),
        ("mlp", (4, 149, 32), False, "stats, layers"),
        ("layers", (149, 32), False, "conv, temporal, mlp, stats, cnn"),
        ("conv", (4, 32), True, "stats, layers"), ("temporal", (1, 32), True, "mlp, stats, layers"),
        ("mlp", (4, 32), True, "stats, layers"),
    ],
)  # fmt: skip
def test_a_head_that_does_not_fit_names_those_that_do(
    name: str, shape: tuple[int, ...], pooled: bool, fitting: str
) -> None:
    with pytest.raises(HeadError, match=f"head '{name}' takes .*, for which there is {fitting}$"):
        build_head(name, shape, 3, pooled, seed=0)


def test_an_unknown_head_lists_the_known() -> None:
    known = "conv, temporal, mlp, stats, layers, cnn"
    with pytest.raises(HeadError, match=f"no head 'lstm'; there are {known}"):
        build_head("lstm", (149, 32), 3, False, seed=0)


@pytest.mark.parametrize("shape", [(43, 32), (149, 31)])
def test_conv_says_what_is_too_small_for_its_pools(shape: tuple[int, ...]) -> None:
    with pytest.raises(HeadError, match="44 frames of 32 features"):
        build_head("conv", shape, 3, False, seed=0)


# --- checkpoints -----------------------------------------------------------------------------


def trained(name: str, shape: tuple[int, ...], pooled: bool) -> nn.Module:
    """A head a few steps from its seed, so that its batch norm has statistics too."""
    head = build_head(name, shape, 3, pooled, seed=0).train()
    optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
    for step in range(3):
        (-head(clips(shape, seed=step), all_frames(shape))[:, step]).mean().backward()
        optimizer.step()
    return head.eval()


def card_of(name: str, shape: tuple[int, ...], pooled: bool) -> dict[str, Any]:
    return {"head": {"name": name, "shape": list(shape), "pooled": pooled,
                     "members": 1},
            "classes": ["positive", "neutral", "negative"], "temperature": 1.5}  # fmt: skip


@each_case
def test_a_checkpoint_gives_the_same_head_back(
    name: str, shape: tuple[int, ...], pooled: bool, tmp_path: Path
) -> None:
    head = trained(name, shape, pooled)
    save_head(tmp_path / "run", head, card_of(name, shape, pooled))
    loaded, card = load_head(tmp_path / "run")
    assert not loaded.training
    with torch.inference_mode():
        batch, frames = clips(shape), all_frames(shape)
        assert torch.equal(loaded(batch, frames), head(batch, frames))
    assert card["temperature"] == 1.5
    assert card["classes"] == ["positive", "neutral", "negative"]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["card.json", "head.safetensors"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("head") / "run"
    save_head(folder, trained("mlp", (1, 12), True), card_of("mlp", (1, 12), True))
    return folder


@pytest.fixture
def copied(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "run"))


def change(folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    card = read_card(folder)
    edit(card)
    (folder / "card.json").write_text(json.dumps(card))


@pytest.mark.parametrize("place", [0, 9, 300, -1])
def test_one_changed_byte_of_the_weights_is_found(copied: Path, place: int) -> None:
    data = bytearray((copied / "head.safetensors").read_bytes())
    data[place] ^= 1
    (copied / "head.safetensors").write_bytes(data)
    with pytest.raises(HeadError, match=r"head.safetensors: not the weights.*train again"):
        load_head(copied)


@pytest.mark.parametrize(
    "edit",
    [
        lambda card: card["head"].update(shape=[1, 13]),
        lambda card: card["head"].update(shape=[]),
        lambda card: card["head"].update(shape=[1, 10**40]),
        lambda card: card["head"].update(shape=[1, 10**11]),
        lambda card: card["head"].update(members=10**9),
        lambda card: card["head"].update(members=2),
        lambda card: card["head"].update(name="layers", shape=[]),
        lambda card: card["head"].update(name="layers"),
        lambda card: card["head"].pop("pooled"),
        lambda card: card["head"].pop("members"),
        lambda card: card["classes"].append("other"),
        lambda card: card.update(classes=3),
        lambda card: card.pop("head"),
    ],
)
def test_a_card_that_does_not_fit_the_weights(
    copied: Path, edit: Callable[[dict[str, Any]], object]
) -> None:
    change(copied, edit)
    with pytest.raises(HeadError, match=f"{copied}: the weights don't fit card.json"):
        load_head(copied)


@pytest.mark.parametrize("classes", [["neutral", "positive", "negative"], ["a", "b", "c"]])
def test_a_card_that_was_changed_is_refused(copied: Path, classes: list[str]) -> None:
    """Other names of the classes fit the weights as well."""
    path = copied / "card.json"
    card = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**card, "classes": classes}), encoding="utf-8")
    with pytest.raises(HeadError, match=r"card\.json: changed since it was written"):
        load_head(copied)
    path.write_text(sealed({**card, "classes": classes}), encoding="utf-8")
    assert load_head(copied)[1]["classes"] == classes


def test_a_card_of_before_there_was_a_seal_is_read(copied: Path) -> None:
    card = read_card(copied)
    (copied / "card.json").write_text(json.dumps(card), encoding="utf-8")
    assert read_card(copied) == card


def test_a_card_of_a_newer_version(copied: Path) -> None:
    change(copied, lambda card: card.update(schema=99))
    with pytest.raises(HeadError, match=r"newer ser_embed \(schema 99\); update ser_embed"):
        load_head(copied)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "damaged"), ("", "damaged"), ("[1]", "not the card of a head"),
        ("{}", "not the card of a head"), ('{"format": "onnx"}', "not the card of a head"),
        ('{"format": "ser_embed head"}', "not the card of a head"),
        ('{"format": "ser_embed head", "schema": "1"}', "not the card of a head"),
        ("[" * 200_000, "damaged"),
    ],
)  # fmt: skip
def test_a_card_that_is_none(copied: Path, text: str, message: str) -> None:
    (copied / "card.json").write_text(text)
    with pytest.raises(HeadError, match=f"card.json: {message}"):
        load_head(copied)


@pytest.mark.parametrize("temperature", [None, 0, -1.5, float("inf"), float("nan"), "1", "none"])
def test_a_card_without_a_usable_temperature(copied: Path, temperature: object) -> None:
    card = read_card(copied)
    if temperature == "none":
        del card["temperature"]
    else:
        card["temperature"] = temperature
    (copied / "card.json").write_text(json.dumps(card))
    with pytest.raises(HeadError, match=r"card\.json: names no temperature above 0 .*train again"):
        load_head(copied)


def test_missing_files_are_named(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"nowhere: no trained head there \(card.json: No such"):
        load_head(tmp_path / "nowhere")
    (copied / "head.safetensors").unlink()
    with pytest.raises(HeadError, match=r"head\.safetensors: No such file"):
        load_head(copied)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_no_card_makes_anything_but_a_head_error(checkpoint: Path, data: st.DataObject) -> None:
    """Any bytes, any JSON, and any JSON in place of any field of a true card."""
    folder = checkpoint.parent / "fuzzed"
    folder.mkdir(exist_ok=True)
    shutil.copy(checkpoint / "head.safetensors", folder)
    # Sizes that no machine would refuse at once are left out: they only take its memory.
    numbers = st.integers(-3, 40) | st.integers(2**62) | st.floats()
    values = st.recursive(
        st.none() | st.booleans() | numbers | st.text(max_size=8) | st.sampled_from(list(HEADS)),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=6,
    )
    kind = data.draw(st.sampled_from(["bytes", "json", "field", "head"]))
    card = read_card(checkpoint)
    if kind == "field":
        card[data.draw(st.sampled_from(["format", "schema", "weights_sha256", "head", "classes"]))
             ] = data.draw(values)  # fmt: skip
    elif kind == "head":
        card["head"][data.draw(st.sampled_from(["name", "shape", "pooled"]))] = data.draw(
            values | st.lists(numbers, max_size=3)
        )
    elif kind == "json":
        card = data.draw(values)
    raw = data.draw(st.binary(max_size=60)) if kind == "bytes" else json.dumps(card).encode()
    (folder / "card.json").write_bytes(raw)
    try:
        head, _ = load_head(folder)
    except HeadError:
        return
    assert isinstance(head, nn.Module)
