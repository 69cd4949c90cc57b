"""One optimisation step: the loss of the whole batch, whatever is held in memory at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from eigenlens.model.losses import Loss
from eigenlens.model.training.distributed import gather

_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def outputs(network: nn.Module, inputs: Tensor, *, precision: str) -> Tensor:
    """Return z of network inputs (n, ...), computed in the precision of a run and given in float32."""
    if inputs.ndim == 4:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with torch.autocast(inputs.device.type, _TYPES[precision]) if precision in _TYPES else nullcontext():
        z: Tensor = network(inputs)
    return z.float()


def batch_loss(
    network: nn.Module,
    loss: Loss,
    a: Tensor,
    b: Tensor,
    *,
    chunks: int,
    precision: str,
    scale: Callable[[Tensor], Tensor] = lambda value: value,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the loss over the pairs of all processes and add its gradient to the network's parameters.

    With more than one chunk the network sees the pairs in turn, and the loss still sees them all: a first pass without
    gradients computes z, the loss gives its gradient with respect to z, and a second pass carries that through the
    network chunk by chunk. The second pass draws what the first drew. Batch normalisation is over a chunk, as memory
    allows no other; the statistics of the objective are those of the whole batch.

    Args:
        a, b: network inputs of the positive pairs, (n, ...) each, on the network's device.
        chunks: how many parts of the n pairs are in memory in turn; at most n.
        scale: scales the loss before its gradient is taken (fp16).

    Returns: the loss, a scalar; z_a and z_b of all processes without gradients, in float32.

    Source: for the two passes, Gao et al., arXiv:2101.06983.
    """

    def outputs_of(part_a: Tensor, part_b: Tensor) -> Tensor:
        return outputs(network, torch.cat([part_a, part_b]), precision=precision)

    if chunks == 1:
        z_a, z_b = _gather_halves(outputs_of(a, b))
        value = loss(z_a, z_b)
        scale(value).backward()
        return value.detach(), z_a.detach(), z_b.detach()
    parts = list(zip(a.chunk(chunks), b.chunk(chunks), strict=True))
    with torch.no_grad():
        leaves = [outputs_of(*part) for part in parts]
    for leaf in leaves:
        leaf.requires_grad_()
    halves = [z.chunk(2) for z in leaves]
    local = torch.cat([z_a for z_a, _ in halves] + [z_b for _, z_b in halves])
    z_a, z_b = _gather_halves(local)
    value = loss(z_a, z_b)
    scale(value).backward()
    with _restoring_statistics(network):
        for i, (part, leaf) in enumerate(zip(parts, leaves, strict=True)):
            with _without_all_reduce(network, unless=i == len(parts) - 1):
                outputs_of(*part).backward(leaf.grad)
    return value.detach(), z_a.detach(), z_b.detach()


def _gather_halves(z: Tensor) -> tuple[Tensor, Tensor]:
    """Split the outputs into those of a and of b, and gather each from all processes."""
    z_a, z_b = z.chunk(2)
    return gather(z_a), gather(z_b)


@contextmanager
def _restoring_statistics(network: nn.Module) -> Iterator[None]:
    """Restore the buffers of batch normalisation afterwards: the second pass shows it nothing new."""
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    saved = [(buffer, buffer.clone()) for norm in norms for buffer in norm.buffers()]
    yield
    with torch.no_grad():
        for buffer, before in saved:
            buffer.copy_(before)


def _without_all_reduce(network: nn.Module, *, unless: bool) -> AbstractContextManager[object]:
    """Keep DistributedDataParallel from adding gradients up over processes, but with the last chunk."""
    if unless or not isinstance(network, nn.parallel.DistributedDataParallel):
        return nullcontext()
    return network.no_sync()
