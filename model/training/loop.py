"""The training loop: steps over positive pairs, with checkpoints from which it resumes exactly."""

from __future__ import annotations

import math
import time
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from tensorboardX import SummaryWriter
from torch import Tensor, nn
from tqdm import tqdm

from eigenlens.model.config import TrainingConfig
from eigenlens.model.errors import TrainingError
from eigenlens.model.losses import Loss, build_loss
from eigenlens.model.network import EncoderNetwork
from eigenlens.model.pairs.source import PairSource, rng_for
from eigenlens.model.spectrum.lengths import effective_rank
from eigenlens.model.training.devices import choose_precision
from eigenlens.model.training.distributed import barrier, rank, share_batch_norm, world_size
from eigenlens.model.training.optimizers import build_optimizer
from eigenlens.model.training.run import Run
from eigenlens.model.training.step import batch_loss

_METRICS_EVERY = 10
_RANK_EVERY = 50
# A code of one direction tells nothing apart; a healthy one has tens.
_COLLAPSED = 1.5


def train(run: Run, pairs: PairSource, *, device: torch.device) -> EncoderNetwork:
    """Train to the end of the run's steps, from its checkpoint if it has one, and finish the run.

    The result depends on the configuration and the pairs alone: an interrupted and resumed run ends with the same
    weights as an uninterrupted one on the same kind of device. Under `torchrun` each process takes its share of every
    batch; statistics of the objective and of batch normalisation are those of the whole batch.

    Args:
        pairs: draws positive pairs of the training items, on `device`.

    Returns: the trained network, in evaluation mode.

    Raises: TrainingError, if there are too few images, the loss stops being a number, or the outputs collapse.
    """
    config = run.config
    batch_size = min(config.batch_size, len(pairs))
    if batch_size < 2 * world_size() * config.chunks:
        raise TrainingError(
            f"training needs at least {2 * world_size() * config.chunks} images in a batch "
            f"({world_size()} processes, chunks={config.chunks}), not {batch_size}"
        )
    batch_size -= batch_size % (world_size() * config.chunks)
    steps_per_epoch = len(pairs) // batch_size
    started = time.monotonic()
    torch.manual_seed(config.seed)
    trainer = Trainer(run, device)
    step, spent_s = trainer.restore()
    writer = _Writer(run, step=step) if rank() == 0 else None

    def draw(step: int) -> tuple[Tensor, Tensor]:
        epoch, batch = divmod(step, steps_per_epoch)
        rows = np.array_split(order_of(epoch)[batch * batch_size : (batch + 1) * batch_size], world_size())[rank()]
        return pairs.draw(rows, rng_for(config.seed, "pairs", step, rank=rank()))

    @lru_cache(maxsize=1)
    def order_of(epoch: int) -> NDArray[np.int64]:
        return torch.randperm(len(pairs), generator=rng_for(config.seed, "order", epoch)).numpy()

    first_step_at = saved = time.monotonic()
    first = step
    drawn = draw(step) if step < config.steps else None
    with tqdm(total=config.steps, initial=step, desc="train", unit="step", disable=rank() > 0) as bar:
        while drawn is not None:
            rate = learning_rate(config, step=step)
            loss_on_device, z = trainer.step(*drawn, rate=rate)
            step += 1
            # The next pairs are drawn before this step's loss is read, so that a GPU does not wait for them.
            drawn = draw(step) if step < config.steps else None
            loss = loss_on_device.item()
            _require_finite(loss, config, step=step)
            bar.update()
            record: dict[str, float] = {}
            if step % _RANK_EVERY == 0:
                record["effective_rank"] = require_spread(z, config, step=step)
            if (step % _METRICS_EVERY == 0 or step == config.steps) and writer is not None:
                now = time.monotonic()
                speed = (step - first) * batch_size / (now - first_step_at)
                record |= {"step": step, "epoch": step / steps_per_epoch, "loss": loss, "learning_rate": rate}
                writer.add(record | {"images_per_s": round(speed, 1), "elapsed_s": round(spent_s + now - started, 3)})
                bar.set_postfix(loss=f"{loss:.3f}", images_per_s=f"{speed:.0f}")
            if writer is not None and time.monotonic() - saved >= config.checkpoint_every_s and step < config.steps:
                saved = time.monotonic()
                trainer.save(step=step, elapsed_s=spent_s + saved - started)
    trainer.network.eval()
    if writer is not None:
        writer.close()
        run.finish(trainer.network)
    barrier()
    return trainer.network


class Trainer:
    """Network, optimiser and, for fp16, the scale of gradients: what a step changes and a checkpoint keeps."""

    def __init__(self, run: Run, device: torch.device) -> None:
        self.run, self.config = run, run.config
        self.network = run.build_network().to(device)
        self.network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stubs lack it
        self.optimizer = build_optimizer(self.network, self.config)
        self._precision = choose_precision(self.config.precision, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._precision == "fp16")
        self.loss: Loss = build_loss(self.config.objective)
        self.network.train()
        # Parameters are shared between these; the plain network is what is saved.
        self._module: nn.Module = self.network
        if world_size() > 1:
            shared = share_batch_norm(self.network)
            self._module = nn.parallel.DistributedDataParallel(
                shared, device_ids=[device.index] if device.type == "cuda" else None, broadcast_buffers=False
            )
        if self.config.compile:
            self._module = torch.compile(self._module)  # type: ignore[assignment]

    def step(self, a: Tensor, b: Tensor, *, rate: float) -> tuple[Tensor, Tensor]:
        """Take one optimisation step over this process's pairs.

        Args:
            a, b: network inputs of the positive pairs, (n, ...) each.
            rate: the learning rate.

        Returns: the loss, a scalar that a GPU may still be computing; z of both halves of all processes' pairs,
            (2 n world_size, code_length).
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        loss, z_a, z_b = batch_loss(
            self._module,
            self.loss,
            a,
            b,
            chunks=self.config.chunks,
            precision=self._precision,
            scale=self.scaler.scale,
        )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss, torch.cat([z_a, z_b])

    def restore(self) -> tuple[int, float]:
        """Load the checkpoint, or the backbone's first weights before the first; return step and seconds so far."""
        state = self.run.load_checkpoint()
        if state is None:
            if first := self.run.first_weights():
                self.network.backbone.load_state_dict(first)
            return 0, 0.0
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        return int(state["step"]), float(state["elapsed_s"])

    def save(self, *, step: int, elapsed_s: float) -> None:
        """Replace the checkpoint."""
        self.run.save_checkpoint(
            {
                "step": step,
                "elapsed_s": elapsed_s,
                "network": self.network.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
            }
        )


class _Writer:
    """The metrics file and, beside it, the same figures as TensorBoard events."""

    def __init__(self, run: Run, *, step: int) -> None:
        run.truncate_metrics(step)
        self._run = run
        self._events = SummaryWriter(str(run.events), purge_step=step)

    def add(self, record: dict[str, float]) -> None:
        """Write one record, with its `step`."""
        self._run.append_metrics(record)
        for name, value in record.items():
            if name not in ("step", "epoch", "elapsed_s"):
                self._events.add_scalar(name, value, int(record["step"]))

    def close(self) -> None:
        """Flush and close the event file."""
        self._events.close()


def learning_rate(config: TrainingConfig, *, step: int) -> float:
    """Return the learning rate of a step: linear warm-up, then cosine decay to zero."""
    ramp = min(1.0, (step + 1) / (config.warmup_steps + 1))
    return config.learning_rate * ramp * 0.5 * (1 + math.cos(math.pi * step / config.steps))


def _require_finite(loss: float, config: TrainingConfig, *, step: int) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the loss is {loss} at step {step}: lower learning_rate (now {config.learning_rate}), "
            "raise warmup_steps, or train with --set precision=fp32"
        )


def require_spread(z: Tensor, config: TrainingConfig, *, step: int) -> float:
    """Return the effective rank of z. Raises: TrainingError, if it is that of a collapsed code after the warm-up."""
    directions = effective_rank(z)
    if directions < _COLLAPSED and config.code_length >= 8 and step > config.warmup_steps:
        raise TrainingError(
            f"the outputs collapsed at step {step}: they use {directions:.2f} of {config.code_length} directions; "
            f"lower learning_rate (now {config.learning_rate}), raise batch_size (now {config.batch_size}) "
            f"or the objective's penalty, or choose another objective (now {config.objective.name})"
        )
    return round(directions, 2)
