"""What a session leaves behind is whole at any moment, however the program ends."""

import json
import wave
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest
import soundfile

from ser_embed.errors import AudioError
from ser_embed.live.journal import Log, Recorder


def test_a_recording_is_whole_after_every_write(tmp_path: Path) -> None:
    path, rng = tmp_path / "heard.wav", np.random.default_rng(0)
    recorder, written = Recorder(path), []
    for _ in range(3):
        written.append(rng.uniform(-0.9, 0.9, 5000).astype(np.float32))
        recorder.write(written[-1])
        with wave.open(str(path), "rb") as file:  # nobody has closed it
            assert file.getparams()[:4] == (1, 2, 16_000, 5000 * len(written))
        found = soundfile.read(path, dtype="float32")[0]
        np.testing.assert_allclose(found, np.concatenate(written), atol=2**-15)
    recorder.close()


def test_what_is_louder_than_full_scale_is_cut(tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "heard.wav")
    recorder.write(np.array([2.0, -2.0, 1.0, -1.0, np.nan, 0.0], dtype=np.float32))
    recorder.close()
    found = soundfile.read(tmp_path / "heard.wav", dtype="int16")[0]
    assert found.tolist() == [32767, -32768, 32767, -32768, 0, 0]


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "heard.wav"
    path.write_bytes(b"mine")
    with pytest.raises(AudioError, match=r"heard\.wav: exists"):
        Recorder(path)
    assert path.read_bytes() == b"mine"


def test_a_wav_that_is_full_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ser_embed.live.journal._MOST_BYTES", 4000)
    recorder = Recorder(tmp_path / "heard.wav")
    for _ in range(5):
        recorder.write(np.zeros(800, dtype=np.float32))
    recorder.close()
    assert recorder.full
    assert soundfile.info(tmp_path / "heard.wav").frames == 1600


def test_a_log_is_appended_to_and_on_the_disk_at_once(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    for run in range(2):
        log = Log(path)
        log.write("start", run=run, text="中性")
        assert len(path.read_text(encoding="utf-8").splitlines()) == run + 1
        log.close()
        log.write("late")
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [(line["event"], line["run"], line["text"]) for line in lines] == [
        ("start", 0, "中性"), ("start", 1, "中性"),
    ]  # fmt: skip
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo is not None
