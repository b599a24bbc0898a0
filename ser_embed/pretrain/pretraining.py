"""Pre-train a small wav2vec2-shaped encoder on speech.

Three self-supervised tasks and, with `--labelled`, one with labels, all at once:

- frames: the low-level descriptors of every frame, masked or not (PASE, Pascual et al. 2019);
- units: at masked frames, the k-means cluster of the spectrum's shape and, apart from it, of the
  prosody around it (HuBERT, Hsu et al. 2021; its clusters are of MFCC alone, which teach phones);
- clip: mean and spread of every descriptor over the clip, from attentive pooling;
- emotion: that of the clips of the labelled corpora, from the same pooling.

The input is disturbed by noise, reverberation and other voices; the targets are not. A run
resumes from its last state, and the same seed gives the same run.
"""

import json
import logging
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch
import transformers
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ser_embed.command import Outcome
from ser_embed.errors import EncoderError, SerEmbedError
from ser_embed.pretrain.options import PretrainConfig
from ser_embed.pretrain.speech import Batch, Speech, draw_batch
from ser_embed.pretrain.tasks import Scales, Tasks
from ser_embed.progress import progress

__all__ = ["pretrain_encoder"]

log = logging.getLogger(__name__)

LOSSES = {"frames": 1.0, "low_frames": 0.5, "units": 0.3, "clip": 1.0, "emotion": 1.0}


# --- the run ---------------------------------------------------------------------------------


def pretrain_encoder(config: PretrainConfig) -> Outcome:
    """Train or resume, then write the encoder.

    Raises:
        EncoderError: No audio, a corpus that encoders are judged on, a state of other settings.
        SerEmbedError: The loss is not finite.
    """
    _check(config)
    speech = Speech(config.roots, config.labelled, config.quiet)
    log.info("%d clips, %.2f h of speech", len(speech.lengths), speech.hours)
    run = _Run(config, speech)
    with progress("pre-train", config.steps, "step", config.quiet, done=run.step) as bar:
        while run.step < config.steps:
            losses = run.advance()
            bar.note(", ".join(f"{name} {value:.3f}" for name, value in losses.items()))
            bar.advance()
    parameters = _write_encoder(run.model, config.out)
    result = {
        "encoder": str(config.out), "steps": config.steps, "hours": round(speech.hours, 2),
        "parameters": parameters, "seconds": round(run.seconds), "losses": run.recent(),
        "bytes": (config.out / "model.safetensors").stat().st_size,
    }  # fmt: skip
    log.info("wrote %s: %.1f M parameters", config.out, parameters / 1e6)
    return Outcome(result)


def _check(config: PretrainConfig) -> None:
    least = {"steps": 1, "batch_size": 1, "seconds": 0.5, "save_every": 1, "lr": 0.0, "decay": 0.0}
    for name, bound in least.items():
        if getattr(config, name) < bound:
            option = f"--{name.replace('_', '-')}"
            raise EncoderError(f"{option} {getattr(config, name)}: at least {bound}")
    if config.decay > 1:
        raise EncoderError(f"--decay {config.decay}: a share of the steps, at most 1")
    for folder in filter(None, (config.shape, config.init)):
        if not (folder / "config.json").is_file():
            raise EncoderError(f"{folder}: no config.json there")


def _write_encoder(model: transformers.PreTrainedModel, out: Path) -> int:
    """Write an encoder in transformers' format, float16; return its number of parameters."""
    out.mkdir(parents=True, exist_ok=True)
    half = {k: v.detach().cpu().half().contiguous() for k, v in model.state_dict().items()}
    temporary = out / "model.tmp"
    save_file(half, temporary, metadata={"format": "pt"})
    temporary.replace(out / "model.safetensors")
    model.config.save_pretrained(out)
    transformers.Wav2Vec2FeatureExtractor(
        do_normalize=True, return_attention_mask=True
    ).save_pretrained(out)
    return sum(p.numel() for p in model.parameters())


class _Run:
    """The state of one pre-training."""

    def __init__(self, config: PretrainConfig, speech: Speech) -> None:
        self.config, self.speech = config, speech
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        shape = transformers.AutoConfig.from_pretrained(config.shape)
        torch.manual_seed(config.seed)
        self.model = (
            transformers.Wav2Vec2Model.from_pretrained(config.init, dtype=torch.float32)
            if config.init else transformers.Wav2Vec2Model(shape)
        )  # fmt: skip
        self.model.to(self.device).train()  # type: ignore[arg-type]
        shape = self.model.config
        self.tasks = Tasks(shape.hidden_size, shape.num_hidden_layers, len(speech.emotions))
        self.tasks.to(self.device).train()
        if config.compile:
            self.model.feature_extractor.compile()
        self.parameters = [*self.model.parameters(), *self.tasks.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.parameters, config.lr, betas=(0.9, 0.98), weight_decay=config.weight_decay
        )
        self.step, self.seconds = 0, 0.0
        self.history: list[dict[str, float]] = []
        self.state = config.out / "state.safetensors"
        if self.state.is_file():
            self._resume()
        else:
            self.scales = Scales.measure(speech, config)
        self.scales = Scales(**{k: v.to(self.device) for k, v in vars(self.scales).items()})

    def advance(self) -> dict[str, float]:
        """Train on one batch; save when it is time."""
        began = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * _schedule(self.step, self.config)
        batch = draw_batch(self.speech, self.config, self.step)
        batch = Batch(**{k: v.to(self.device) for k, v in vars(batch).items()})
        torch.manual_seed(self.config.seed * 1_000_003 + self.step)  # dropout
        with torch.autocast(self.device.type, torch.bfloat16):
            own = torch.arange(batch.input.shape[1], device=self.device) < batch.lengths[:, None]
            hidden = self.model(
                batch.input, attention_mask=own.long(), mask_time_indices=batch.masked,
                output_hidden_states=True,
            ).hidden_states  # fmt: skip
        losses = self.tasks.losses(hidden, batch, self.scales)
        total = torch.stack([LOSSES[name] * loss for name, loss in losses.items()]).sum()
        if not torch.isfinite(total):
            raise SerEmbedError(f"step {self.step}: the loss is not finite; try a smaller --lr")
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.step += 1
        values = {name: float(loss.detach()) for name, loss in losses.items()}
        self.seconds += time.perf_counter() - began
        self.history.append({"step": self.step} | values)
        if self.step % self.config.save_every == 0 or self.step == self.config.steps:
            self._save()
        return values

    def recent(self) -> dict[str, float]:
        """Return each task's mean loss over the last 100 steps."""
        rows = pd.DataFrame(self.history[-100:], columns=list(LOSSES))
        return {str(k): round(v, 4) for k, v in rows.mean().dropna().items()}

    def _save(self) -> None:
        tensors = {f"model.{k}": v for k, v in self.model.state_dict().items()}
        tensors |= {f"tasks.{k}": v for k, v in self.tasks.state_dict().items()}
        tensors |= {f"scales.{k}": v for k, v in vars(self.scales).items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{k}": v for k, v in state.items()}
        tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        self.config.out.mkdir(parents=True, exist_ok=True)
        temporary = self.state.with_suffix(".tmp")
        about = {"step": self.step, "seconds": self.seconds, "settings": self._settings()}
        save_file(tensors, temporary, metadata={"about": json.dumps(about)})
        history = self.config.out / "history.csv"
        row = pd.DataFrame([{"step": self.step} | self.recent()], columns=["step", *LOSSES])
        row.to_csv(history, mode="a", header=not history.exists(), index=False)
        temporary.replace(self.state)

    def _settings(self) -> dict[str, Any]:
        """Return the options that must be equal for a state to be resumed; the rest may change."""
        free = ("json", "quiet", "out", "save_every", "compile", "steps", "decay", "roots")
        return {k: str(v) for k, v in asdict(self.config).items() if k not in free}

    def _resume(self) -> None:
        try:
            with safe_open(self.state, framework="pt") as file:
                about = json.loads(file.metadata()["about"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError, OSError) as error:
            raise EncoderError(f"{self.state}: damaged ({error}); delete it to start") from error
        stored = about["settings"]
        differing = [name for name, value in self._settings().items() if stored.get(name) != value]
        if differing:
            raise EncoderError(
                f"{self.state}: made with other settings ({', '.join(differing)}); give those, or "
                "choose another --out"
            )

        def under(prefix: str) -> dict[str, Tensor]:
            return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}

        self.model.load_state_dict(under("model."))
        self.tasks.load_state_dict(under("tasks."))
        self.scales = Scales(**under("scales."))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("optimizer.").items():
            number, key = name.split(".", 1)
            state.setdefault(int(number), {})[key] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": state, "param_groups": groups})
        self.step, self.seconds = about["step"], about["seconds"]
        log.info("resumed at step %d of %d", self.step, self.config.steps)


def _schedule(step: int, config: PretrainConfig) -> float:
    """Warm up, hold, fall: held, so that a run can be made longer without having been too short."""
    fall = (config.steps - step) / max(1.0, config.decay * config.steps)
    return min((step + 1) / 300, 1.0, fall)
