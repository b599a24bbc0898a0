"""Training an end-to-end network with transformers' Trainer: its settings, and what it did.

The loop, the optimiser, gradient accumulation, mixed precision, checkpoints and early stopping
are the Trainer's. Its checkpoints hold the optimiser and random states as torch files: they are
only ever read back from this run's own folder, and as plain tensors (`weights_only`). What it
pickles whole, its arguments, is never read; all of it is deleted when the split is done.
"""

import json
import logging
import math
import random
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import transformers
from safetensors.torch import load_file
from torch.nn import functional as F

from ser_embed.errors import AudioError, MissingExtra, SerEmbedError
from ser_embed.finetune.network import WEIGHTS, Network
from ser_embed.finetune.recipes import Precision, Recipe
from ser_embed.finetune.recordings import (
    Augment,
    Collator,
    Recordings,
    Waveforms,
    training_data,
)
from ser_embed.progress import Bar
from ser_embed.reports import Plot, scores_of
from ser_embed.splits import Split

__all__ = ["CHECKPOINTS", "Stopping", "Trace", "available_precision", "train_network"]

log = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
STATE = "trainer_state.json"
_SCHEDULES = {"constant": "constant_with_warmup"}  # the same without a warmup


@dataclass(frozen=True)
class Stopping:
    """When to stop: after so many evaluations in which the watched value has not improved.

    Attributes:
        watch: `loss` or `uar`, on the validation part.
        patience: Evaluations.
    """

    watch: str
    patience: int


def available_precision(asked: Precision) -> Precision:
    """Return the arithmetic that `auto` stands for on this machine.

    Raises:
        SerEmbedError: fp16 was asked for without a GPU.
    """
    cuda = torch.cuda.is_available()
    if asked == "fp16" and not cuda:
        raise SerEmbedError("--precision fp16 needs a GPU; use bf16, fp32 or auto")
    if asked != "auto":
        return asked
    if cuda:
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    # torch has no public question for this.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    return "bf16" if supported() else "fp32"


# --- what the Trainer is given ---------------------------------------------------------------


def _loss_of(weights: np.ndarray, lr: float) -> Callable[..., torch.Tensor]:
    """Weighted cross-entropy over an optimiser step's clips, however many batches they came in.

    The weights' mean over the training clips is 1, so that numerators over clips are unbiased.
    """
    of_class = torch.as_tensor(weights, dtype=torch.float32)

    def loss(outputs: Any, labels: torch.Tensor, num_items_in_batch: Any = None) -> torch.Tensor:
        logits = outputs["logits"].float()
        summed = F.cross_entropy(logits, labels, of_class.to(logits.device), reduction="sum")
        mean = summed / (len(labels) if num_items_in_batch is None else num_items_in_batch)
        if not torch.isfinite(mean).all():
            raise SerEmbedError(
                f"the loss is not finite at a learning rate of {lr:g}: try a smaller --lr, or "
                "--precision fp32"
            )
        return mean

    return loss


def _metrics(found: Any) -> dict[str, float]:
    scores = found.predictions
    return scores_of(found.label_ids, scores.argmax(1), scores.shape[1])


def _logits_only(logits: Any, labels: torch.Tensor) -> torch.Tensor:
    return logits[0] if isinstance(logits, tuple) else logits


def _trainer(**given: Any) -> Any:
    """Return a Trainer that leaves a last batch of one clip out of training alone: by itself its
    `drop_last` would leave clips out of validation too.
    """

    class Trainer(transformers.Trainer):  # here, because naming it imports the extras
        def get_eval_dataloader(self, eval_dataset: Any = None) -> Any:
            dropped, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
            try:
                return super().get_eval_dataloader(eval_dataset)
            finally:
                self.args.dataloader_drop_last = dropped

    return Trainer(**given)


class _Watch(transformers.TrainerCallback):
    """Moves the bar, and sets the epoch for the reader of training clips."""

    def __init__(self, bar: Bar, reader: Waveforms) -> None:
        self.bar, self.reader = bar, reader

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.total, self.bar.done = state.max_steps, state.global_step
        self.on_epoch_begin(args, state, control)

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.reader.epoch = int(state.epoch or 0)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.bar.advance(state.global_step - self.bar.done)

    def on_evaluate(self, args: Any, state: Any, control: Any, **given: Any) -> None:
        metrics = given["metrics"]
        values = (f"{name} {metrics[f'eval_{name}']:.3f}" for name in ("loss", "wa", "uar"))
        self.bar.note(f"validation {', '.join(values)}")


def _arguments(
    n_clips: int, network: Network, recipe: Recipe, stopping: Stopping | None, workers: int,
    folder: Path,
) -> Any:  # fmt: skip
    per_epoch = math.ceil(math.ceil(n_clips / recipe.batch_size) / recipe.accumulate)
    every = min(recipe.eval_steps or per_epoch, per_epoch * recipe.epochs)
    precision = available_precision(recipe.precision)
    # Batch norm can't train on a single clip.
    single = network.kind != "classification" and n_clips % recipe.batch_size == 1
    try:
        return transformers.TrainingArguments(
            output_dir=str(folder / CHECKPOINTS),
            per_device_train_batch_size=recipe.batch_size,
            per_device_eval_batch_size=recipe.batch_size,
            gradient_accumulation_steps=recipe.accumulate,
            learning_rate=recipe.lr,
            lr_scheduler_type=_SCHEDULES.get(recipe.schedule, recipe.schedule),
            warmup_steps=recipe.warmup,  # under 1: a share of all steps
            weight_decay=recipe.weight_decay,
            num_train_epochs=recipe.epochs,
            optim="adamw_torch",
            seed=recipe.seed,
            use_cpu=not torch.cuda.is_available(),
            bf16=precision == "bf16",
            fp16=precision == "fp16",
            eval_strategy="steps",
            eval_steps=every,
            save_strategy="steps",
            save_steps=every,
            save_total_limit=1,  # the newest, and the best
            logging_strategy="steps",
            logging_steps=every,
            logging_nan_inf_filter=False,
            load_best_model_at_end=stopping is not None,
            metric_for_best_model=stopping.watch if stopping else None,
            greater_is_better=stopping.watch != "loss" if stopping else None,
            restore_callback_states_from_checkpoint=True,
            remove_unused_columns=False,
            label_names=["labels"],
            dataloader_num_workers=workers,
            dataloader_pin_memory=torch.cuda.is_available(),
            dataloader_drop_last=single,
            disable_tqdm=True,
            report_to="none",
            log_level="error",
        )
    except ImportError as error:
        raise MissingExtra("accelerate", "finetune") from error


# --- what it gives --------------------------------------------------------------------------

_COLUMNS = ("step", "epoch", "train_loss", "val_loss", "val_wa", "val_uar", "val_macro_f1")


@dataclass(frozen=True)
class Trace:
    """What training did.

    Attributes:
        table: One row an evaluation, the columns of history.csv.
        steps: Optimiser steps that were taken.
        epochs: The same in passes over the training clips.
        kept: Step whose weights are kept.
    """

    table: pd.DataFrame
    steps: int
    epochs: float
    kept: int

    def write(self, folder: Path) -> None:
        """Write history.csv, history.md (the table of model cards) and history.png."""
        self.table.to_csv(folder / "history.csv", index=False)
        lines = ["| training loss | epoch | step | validation loss | accuracy | UAR | macro-F1 |",
                 "|---|---|---|---|---|---|---|"]  # fmt: skip
        for row in self.table.itertuples(index=False):
            # The Trainer logs no loss of the steps after the last whole stretch.
            loss = f"{row.train_loss:.4f}".replace("nan", "no log")
            lines.append(
                f"| {loss} | {row.epoch:.2f} | {row.step} | {row.val_loss:.4f} | "
                f"{row.val_wa:.4f} | {row.val_uar:.4f} | {row.val_macro_f1:.4f} |"
            )
        (folder / "history.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
        columns = {name: self.table[name].tolist() for name in _COLUMNS}
        Plot.history(columns, self.kept, unit="step").save(folder / "history.png")


def _table_of(history: Sequence[Mapping[str, float]]) -> pd.DataFrame:
    """Join what the Trainer logged of training and of validation, by step."""
    losses = {int(row["step"]): row["loss"] for row in history if "loss" in row}
    rows = [
        (int(row["step"]), row["epoch"], losses.get(int(row["step"]), math.nan),
         *(row[f"eval_{name}"] for name in ("loss", "wa", "uar", "macro_f1")))
        for row in history if "eval_loss" in row
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(_COLUMNS))


# --- training --------------------------------------------------------------------------------


def train_network(
    network: Network,
    clips: Recordings,
    split: Split,
    class_weights: np.ndarray,
    recipe: Recipe,
    folder: Path,
    *,
    stopping: Stopping | None,
    augment: Augment | None,
    workers: int,
    bar: Bar,
) -> Trace:
    """Train a network in place on the training part, watching the validation part.

    Args:
        network: Ends with the weights of the step to keep: the best by the watched value, or
            without `stopping` the last.
        clips: All clips.
        split: Rows of each part; the test part is never looked at.
        class_weights: Weight of each class in the loss, (C,).
        recipe: How to train.
        folder: Its `checkpoints` are kept there, and gone on from; deleted by the caller.
        stopping: None trains all epochs.
        augment: Disturbs training clips; validation clips never are.
        workers: Processes that read clips; 0 for none.
        bar: Shows the steps.

    Returns:
        What happened.

    Raises:
        SerEmbedError: The loss is not finite, or memory ran out; with advice.
        MissingExtra: accelerate or datasets isn't installed.
    """
    reader = Waveforms(clips, augment)
    callbacks: list[Any] = [_Watch(bar, reader)]
    if stopping:
        callbacks.append(transformers.EarlyStoppingCallback(stopping.patience))
    with _own_randomness(), _advice(recipe):
        trainer = _trainer(
            model=network.module,
            args=_arguments(len(split.train), network, recipe, stopping, workers, folder),
            train_dataset=training_data(clips, split.train, reader),
            eval_dataset=training_data(clips, split.val, Waveforms(clips, None)),
            data_collator=Collator(network),
            compute_loss_func=_loss_of(class_weights, recipe.lr),
            compute_metrics=_metrics,
            preprocess_logits_for_metrics=_logits_only,
            callbacks=callbacks,
        )
        trainer.remove_callback(transformers.PrinterCallback)
        state = _train(trainer, folder / CHECKPOINTS, stopping)
        # Half precision is a wrapper around the module's forward, which would stay.
        trainer.accelerator.unwrap_model(network.module, keep_fp32_wrapper=False)
    network.module.to("cpu").eval()
    kept = state.best_global_step if stopping and state.best_global_step else state.global_step
    return Trace(_table_of(state.log_history), state.global_step, float(state.epoch), int(kept))


def _train(trainer: Any, checkpoints: Path, stopping: Stopping | None) -> Any:
    """Train, or go on from the newest checkpoint; return the Trainer's state."""
    checkpoint = _last_whole(checkpoints)
    if checkpoint is None:
        trainer.train()
        return trainer.state
    log.info("going on from %s", checkpoint)
    state = transformers.TrainerState.load_from_json(str(checkpoint / STATE))
    if stopping and state.best_global_step:
        best = checkpoints / f"checkpoint-{state.best_global_step}"
        if _evaluations_since_best(state) >= stopping.patience:
            # Training was over: the Trainer by itself would go on to the next evaluation.
            trainer.model.load_state_dict(load_file(best / WEIGHTS))
            return state
        if state.best_model_checkpoint != str(best):  # the command was given elsewhere before
            state.best_model_checkpoint = str(best)
            state.save_to_json(str(checkpoint / STATE))
    trainer.train(resume_from_checkpoint=str(checkpoint))
    return trainer.state


def _evaluations_since_best(state: Any) -> int:
    best = state.best_global_step
    return sum(1 for row in state.log_history if "eval_loss" in row and row["step"] > best)


def _last_whole(checkpoints: Path) -> Path | None:
    """Return the newest checkpoint that was written to its end, and delete those that weren't.

    The Trainer writes trainer_state.json last.
    """
    found = sorted(checkpoints.glob("checkpoint-*"), key=lambda path: -int(path.name[11:]))
    for path in found:
        try:
            json.loads((path / STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            shutil.rmtree(path)
            continue
        return path
    return None


@contextmanager
def _own_randomness() -> Iterator[None]:
    """Leave the process's generators, which the Trainer seeds, as they were."""
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    with torch.random.fork_rng():
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])  # noqa: NPY002


@contextmanager
def _advice(recipe: Recipe) -> Iterator[None]:
    """Turn a lack of memory into an error that says what to do; shorten what names a clip."""
    try:
        yield
    except AudioError as error:
        # From a reading process it comes with that process's traceback before it.
        last = str(error).strip().splitlines()[-1]
        raise AudioError(last.removeprefix("ser_embed.errors.AudioError: ")) from error
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        short = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not short and "DefaultCPUAllocator" not in text and "out of memory" not in text:
            raise
        half = max(1, recipe.batch_size // 2)
        times = recipe.accumulate * recipe.batch_size // half
        raise SerEmbedError(
            f"memory ran out at {recipe.batch_size} clips a batch of {recipe.seconds:g} s: try "
            f"--batch-size {half} --accumulate {times}, which trains alike; --freeze 0 or more; "
            "or fewer --seconds"
        ) from error
