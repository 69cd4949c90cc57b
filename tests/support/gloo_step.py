"""Steps in this process of a group: its share of each batch in, the loss and gradients of the whole batch out.

python -m tests.support.forked 2 tests.support.gloo_step STEPS.pt OUT.pt

STEPS.pt holds a list of (batch, objective, chunks), and OUT.pt what `gradients` gives for each.
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from eigenlens.model.config import load_config
from eigenlens.model.losses import build_loss
from eigenlens.model.network import EncoderNetwork
from eigenlens.model.training.distributed import exit_process, process_group, rank, share_batch_norm, world_size
from eigenlens.model.training.step import batch_loss


def gradients(views: torch.Tensor, objective: str, *, chunks: int) -> dict[str, torch.Tensor]:
    """Loss, gradients and running statistics after one step over `views` (2, n, 3, size, size)."""
    torch.manual_seed(0)
    plain = EncoderNetwork("tiny-conv", hidden_length=16, hidden_layers=1, code_length=8).double().train()
    network: nn.Module = plain
    if world_size() > 1:
        network = nn.parallel.DistributedDataParallel(share_batch_norm(plain), broadcast_buffers=False)
    view_a, view_b = (view.chunk(world_size())[rank()] for view in views)
    loss = build_loss(load_config(None, [f"objective.name={objective}"]).objective)
    value, _, _ = batch_loss(network, loss, view_a, view_b, chunks=chunks, precision="fp32")
    found = {name: p.grad for name, p in plain.named_parameters() if p.grad is not None}
    return {"loss": value, **found, **dict(plain.named_buffers())}


if __name__ == "__main__":
    steps, out = sys.argv[1:]
    torch.set_num_threads(1)
    with process_group(torch.device("cpu")):
        result = [
            gradients(views, objective, chunks=chunks)
            for views, objective, chunks in torch.load(steps, weights_only=True)
        ]
        if rank() == 0:
            torch.save(result, out)
    exit_process(0)
