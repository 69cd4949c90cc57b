"""Several processes, one batch: sums over processes that gradients pass through, and who speaks for all."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def is_one_of_several() -> bool:
    """Whether `torchrun` started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


@contextmanager
def process_group(device: torch.device) -> Iterator[torch.device]:
    """Join the processes that `torchrun` started, with NCCL on CUDA and gloo elsewhere; nothing to join alone.

    Yields: the device of this process: on CUDA the one of its local rank.
    """
    if not is_one_of_several() or dist.is_initialized():
        yield device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield device
        dist.barrier()  # one that leaves while others still speak may pull them down
    finally:
        dist.destroy_process_group()


def exit_process(status: int) -> NoReturn:
    """Exit this process, which has done its work, without the interpreter's shutdown.

    gloo's threads outlive destroy_process_group. One that lets go of its last tensor while the interpreter ends aborts
    the process ("terminate called without an active exception"), and torchrun then calls a finished run a failed one.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def world_size() -> int:
    """Return how many processes share a batch."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Return this process's rank among them; 0 writes the run."""
    return dist.get_rank() if dist.is_initialized() else 0


class _Sum(torch.autograd.Function):
    """The sum over processes; each process's gradient is the sum of theirs."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


class _Gather(torch.autograd.Function):
    """The rows of all processes; each gets the sum of the gradients that its rows have in all of them."""

    @staticmethod
    def forward(_: Any, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x)
        return torch.cat(parts)

    @staticmethod
    def backward(_: Any, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


def gather(z: Tensor) -> Tensor:
    """Gather the rows of all processes by rank, (world_size n, ...); gradients go back to where a row came from.

    Every process then has the loss of the whole batch. The gradient of their sum reaches each row, world_size times
    too large, and DistributedDataParallel's mean over processes takes just that factor out.
    """
    return z if world_size() == 1 else _apply(_Gather, z.contiguous())


def _apply(function: type[torch.autograd.Function], x: Tensor) -> Tensor:
    out: Tensor = function.apply(x)
    return out


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


class SharedBatchNorm(_BatchNorm):
    """Batch normalisation with the statistics of all processes' rows, on any device, under the same parameter names.

    torch's SyncBatchNorm does the same on GPUs only, so it could not be tested, or used, on CPUs.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of dimensions: features come second."""

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            out: Tensor = super().forward(input)
            return out
        x = input if input.dtype == torch.float64 else input.float()
        axes, shape = [0, *range(2, x.ndim)], [1, -1] + [1] * (x.ndim - 2)
        n = x.numel() // x.shape[1] * world_size()
        mean = _apply(_Sum, x.sum(axes)) / n
        centred = x - mean.view(shape)
        variance = _apply(_Sum, centred.square().sum(axes)) / n
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * n / max(n - 1, 1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(input.dtype)


def share_batch_norm(module: nn.Module) -> nn.Module:
    """Replace every batch normalisation in place by one over all processes that has the same parameters."""
    for name, child in module.named_children():
        if isinstance(child, _BatchNorm):
            shared = SharedBatchNorm(child.num_features, eps=child.eps, momentum=child.momentum)
            shared.weight, shared.bias = child.weight, child.bias
            for key, buffer in child.named_buffers():
                setattr(shared, key, buffer)
            setattr(module, name, shared.train(child.training))
        else:
            share_batch_norm(child)
    return module
