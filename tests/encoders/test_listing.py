"""The command that lists the encoders with a name."""

import json
from pathlib import Path

import pytest

from ser_embed.encoders.__main__ import encoders, main
from ser_embed.encoders.frozen import load_encoder
from ser_embed.encoders.registry import ENCODERS


def test_every_encoder_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out.splitlines()[-1])["encoders"]
    assert [row["name"] for row in rows] == list(ENCODERS)
    assert main([]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split()[:4] == ["name", "family", "parameters", "layers"]
    assert [line.split()[0] for line in lines] == list(ENCODERS)


def test_what_is_here_loads_without_a_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    here = {row["name"] for row in encoders() if row["here"]}
    assert here >= {"mini", "mini-open", "random-mini", "random-base", "log-mel"}
    assert "torchaudio-base-960h" not in here
    weights = tmp_path / "hub" / "checkpoints" / ENCODERS["torchaudio-base-960h"].file
    weights.parent.mkdir(parents=True)
    weights.touch()
    assert "torchaudio-base-960h" in {row["name"] for row in encoders() if row["here"]}


@pytest.mark.parametrize("name", ["mini", "mini-open", "random-mini", "log-mel"])
def test_the_list_says_what_the_weights_are(name: str) -> None:
    encoder, spec = load_encoder(name, "all", backend="torch"), ENCODERS[name]
    parameters = sum(p.numel() for p in encoder.network.parameters())
    assert parameters / 1e6 == pytest.approx(spec.parameters, abs=0.05)
    assert encoder.n_layers == spec.layers


def test_the_list_says_what_whisper_is(shared: Path) -> None:
    folder = shared / "encoders" / "whisper-tiny.en"
    if not folder.is_dir():
        pytest.skip(f"there is no {folder}")
    encoder, spec = load_encoder(str(folder), "all", backend="torch"), ENCODERS["whisper-tiny.en"]
    parameters = sum(p.numel() for p in encoder.network.parameters())
    assert parameters / 1e6 == pytest.approx(spec.parameters, abs=0.05)
    assert encoder.n_layers == spec.layers
