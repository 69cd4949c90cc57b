"""Networks that peers train on one graph each, by torch-geometric's layers and the settings that they published.

Their coordinates have no order, so that principal components make shorter codes of them. Needs the extra `graph-peers`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from eigenlens.benchmarks.nodes.methods import LENGTH, Codes
from eigenlens.install import install_line
from eigenlens.model.errors import ConfigError
from eigenlens.model.graphs.artifact import Graph
from eigenlens.model.graphs.sparse import SparseRows


@dataclass(frozen=True)
class _CcaSettings:
    layers: int
    epochs: int
    decorrelation: float
    dropped_features: float
    dropped_edges: float


@dataclass(frozen=True)
class _BgrlSettings:
    widths: tuple[int, int]
    rate: float
    dropped_edges: tuple[float, float]
    dropped_features: tuple[float, float]
    epochs: int = 10000


@dataclass(frozen=True)
class _GraceSettings:
    width: int
    activation: Callable[[], nn.Module]
    rate: float
    dropped_edges: tuple[float, float]
    dropped_features: tuple[float, float]
    temperature: float


# As the authors' repositories have them: hengruizhang98/CCA-SSG (README), CRIPAC-DIG/GRACE (config.yaml),
# nerdslab/bgrl (config/) and PetarV-/DGI (execute.py).
_CCA = {
    "cora": _CcaSettings(2, 50, 1e-3, 0.1, 0.4),
    "citeseer": _CcaSettings(1, 20, 5e-4, 0.0, 0.4),
    "amazon_computers": _CcaSettings(2, 50, 5e-4, 0.1, 0.3),
    "amazon_photo": _CcaSettings(2, 50, 1e-3, 0.2, 0.3),
}
_GRACE = {
    "cora": _GraceSettings(128, nn.ReLU, 5e-4, (0.2, 0.4), (0.3, 0.4), 0.4),
    "citeseer": _GraceSettings(256, nn.PReLU, 1e-3, (0.2, 0.0), (0.3, 0.2), 0.9),
}
# None is published for Cora: it takes those of Amazon Computers, and epochs that a processor trains in a minute.
_BGRL = {
    "cora": _BgrlSettings((256, 128), 5e-4, (0.5, 0.4), (0.2, 0.1), epochs=200),
    "amazon_computers": _BgrlSettings((256, 128), 5e-4, (0.5, 0.4), (0.2, 0.1)),
    "amazon_photo": _BgrlSettings((256, 128), 1e-4, (0.4, 0.1), (0.1, 0.2)),
    "coauthor_cs": _BgrlSettings((512, 256), 1e-5, (0.3, 0.2), (0.3, 0.4)),
}
_CCA_WIDTH, _CCA_RATE = 512, 1e-3
_GRACE_EPOCHS, _GRACE_DECAY = 200, 1e-5
# Deep Graph Infomax has one setting for all; training ends when the loss has not fallen for `_PATIENCE` epochs.
_TINY = 1e-12
_DGI_WIDTH, _DGI_RATE, _DGI_EPOCHS, _PATIENCE = 512, 1e-3, 10000, 20
# The rate rises for a tenth of the epochs.
_BGRL_WARMUP, _BGRL_PREDICTOR, _BGRL_DECAY, _BGRL_MOMENTUM = 10, 512, 1e-5, 0.99
_BATCH_MOMENTUM = 0.99


class _SparseLinear(nn.Module):
    """A linear layer of sparse rows, without offset."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        nn.init.xavier_uniform_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = torch.sparse.mm(x, self.weight)
        return product


class _Gcn(nn.Module):
    """Graph convolutions, the first of sparse features, with an activation behind each but, for CCA-SSG, the last."""

    def __init__(self, widths: list[int], activations: list[nn.Module]) -> None:
        super().__init__()
        gcn = _geometric().nn.GCNConv
        self.layers = nn.ModuleList(gcn(width, out) for width, out in pairwise(widths))
        self.layers[0].lin = _SparseLinear(widths[0], widths[1])
        self.activations = nn.ModuleList(activations)

    def forward(self, x: Tensor, edges: Tensor) -> Tensor:
        for layer, activation in zip(self.layers, self.activations, strict=True):
            x = activation(layer(x, edges))
        return x


def dgi(graph: Graph, *, seed: int) -> Codes:
    """Train Deep Graph Infomax. Source: Veličković et al., ICLR 2019, with its published settings."""
    torch.manual_seed(seed)
    x, edges = _inputs(graph)
    model = _geometric().nn.DeepGraphInfomax(
        hidden_channels=_DGI_WIDTH,
        encoder=_Gcn([x.shape[1], _DGI_WIDTH], [nn.PReLU()]),
        summary=lambda z, *_: torch.sigmoid(z.mean(0)),
        corruption=lambda x, edges: (x.index_select(0, torch.randperm(len(x))), edges),
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=_DGI_RATE)
    best, since, weights = float("inf"), 0, copy.deepcopy(model.state_dict())
    for _ in range(_DGI_EPOCHS):
        optimizer.zero_grad()
        loss = model.loss(*model(x, edges))
        if loss.item() < best:
            best, since, weights = loss.item(), 0, copy.deepcopy(model.state_dict())
        else:
            since += 1
        if since == _PATIENCE:
            break
        loss.backward()
        optimizer.step()
    model.load_state_dict(weights)
    return _components(model.encoder, x, edges)


def cca_ssg(graph: Graph, *, seed: int) -> Codes:
    """Train CCA-SSG. Source: Zhang et al., NeurIPS 2021. Raises: ConfigError, if no settings were published."""
    settings = _published(_CCA, graph)
    torch.manual_seed(seed)
    x, edges = _inputs(graph)
    widths = [x.shape[1]] + [_CCA_WIDTH] * settings.layers
    encoder = _Gcn(widths, [nn.ReLU() for _ in widths[2:]] + [nn.Identity()])
    optimizer = torch.optim.Adam(encoder.parameters(), lr=_CCA_RATE)
    identity = torch.eye(_CCA_WIDTH)
    for _ in range(settings.epochs):
        optimizer.zero_grad()
        outputs = [
            encoder(_drop_features(x, settings.dropped_features), _drop_edges(edges, settings.dropped_edges))
            for _ in range(2)
        ]
        a, b = ((z - z.mean(0)) / z.std(0) for z in outputs)
        invariance = -(a * b).sum() / len(a)
        decorrelation = sum((identity - z.T @ z / len(z)).square().sum() for z in (a, b))
        (invariance + settings.decorrelation * decorrelation).backward()
        optimizer.step()
    return _components(encoder, x, edges)


def grace(graph: Graph, *, seed: int) -> Codes:
    """Train GRACE. Source: Zhu et al., arXiv:2006.04131. Raises: ConfigError, if no settings were published."""
    settings = _published(_GRACE, graph)
    torch.manual_seed(seed)
    x, edges = _inputs(graph)
    activation, width = settings.activation(), settings.width  # one for both layers, as published
    encoder = _Gcn([x.shape[1], 2 * width, width], [activation, activation])
    projector = nn.Sequential(nn.Linear(width, width), nn.ELU(), nn.Linear(width, width))
    parameters = [*encoder.parameters(), *projector.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=settings.rate, weight_decay=_GRACE_DECAY)
    for _ in range(_GRACE_EPOCHS):
        optimizer.zero_grad()
        a, b = (
            F.normalize(projector(encoder(_drop_features(x, of_features), _drop_edges(edges, of_edges))))
            for of_edges, of_features in zip(settings.dropped_edges, settings.dropped_features, strict=True)
        )
        loss = (_contrast(a, b, settings.temperature) + _contrast(b, a, settings.temperature)) / 2
        loss.mean().backward()
        optimizer.step()
    return _components(encoder, x, edges)


def bgrl(graph: Graph, *, seed: int) -> Codes:
    """Train BGRL. Source: Thakoor et al., ICLR 2022. Raises: ConfigError, if no settings were published.

    10,000 epochs, as published, are an hour on a processor for a graph of Cora's size, and a day for Amazon Computers.
    """
    settings = _published(_BGRL, graph)
    torch.manual_seed(seed)
    x, edges = _inputs(graph)

    def network() -> _Gcn:
        blocks = [
            nn.Sequential(nn.BatchNorm1d(width, momentum=_BATCH_MOMENTUM), nn.PReLU()) for width in settings.widths
        ]
        return _Gcn([x.shape[1], *settings.widths], list(blocks))

    online, target = network(), network()
    target.requires_grad_(False)
    width = settings.widths[-1]
    predictor = nn.Sequential(nn.Linear(width, _BGRL_PREDICTOR), nn.PReLU(), nn.Linear(_BGRL_PREDICTOR, width))
    optimizer = torch.optim.AdamW([*online.parameters(), *predictor.parameters()], weight_decay=_BGRL_DECAY)
    epochs, warmup = settings.epochs, settings.epochs // _BGRL_WARMUP
    for epoch in range(epochs):
        rising = min(1.0, epoch / warmup)
        falling = (1 + math.cos(math.pi * max(0, epoch - warmup) / (epochs - warmup))) / 2
        optimizer.param_groups[0]["lr"] = settings.rate * rising * falling
        views = [
            (_drop_features(x, of_features), _drop_edges(edges, of_edges))
            for of_edges, of_features in zip(settings.dropped_edges, settings.dropped_features, strict=True)
        ]
        first, second = (
            F.cosine_similarity(predictor(online(*one)), target(*other), dim=-1).mean()
            for one, other in (views, views[::-1])
        )
        optimizer.zero_grad()
        (2 - first - second).backward()
        optimizer.step()
        share = (1 - _BGRL_MOMENTUM) * (1 + math.cos(math.pi * epoch / epochs)) / 2
        with torch.no_grad():
            for kept, new in zip(target.parameters(), online.parameters(), strict=True):
                kept.lerp_(new, share)
    return _components(online, x, edges)


NETWORKS: dict[str, Callable[[Graph, int], Codes]] = {
    "dgi": lambda graph, seed: dgi(graph, seed=seed),
    "grace": lambda graph, seed: grace(graph, seed=seed),
    "cca-ssg": lambda graph, seed: cca_ssg(graph, seed=seed),
    "bgrl": lambda graph, seed: bgrl(graph, seed=seed),
}


def epochs_of(network: str, graph: Graph) -> int | None:
    """Return for how many epochs a network is trained on a graph where that is less than published, else None."""
    settings = _BGRL.get(graph.name) if network == "bgrl" else None
    return None if settings is None or settings.epochs == _BgrlSettings.epochs else settings.epochs


def _contrast(a: Tensor, b: Tensor, temperature: float) -> Tensor:
    """Return each node's loss, (n,): its two views against all other nodes of both."""
    within, between = (a @ a.T / temperature).exp(), (a @ b.T / temperature).exp()
    return -(between.diagonal() / (within.sum(1) + between.sum(1) - within.diagonal())).log()


def _published(settings: dict[str, Any], graph: Graph) -> Any:
    if graph.name not in settings:
        raise ConfigError(f"no settings are published for {graph.name}; there are those for {', '.join(settings)}")
    return settings[graph.name]


def _inputs(graph: Graph) -> tuple[Tensor, Tensor]:
    """Return sparse features, each node's divided by their sum, and both directions of the edges, (2, edges)."""
    rows = graph.features(0, graph.count)
    if rows is None:
        raise ConfigError(f"{graph.name} has no features")
    x = torch.from_numpy(rows.to_dense() if isinstance(rows, SparseRows) else np.array(rows))
    x = (x / x.sum(1, keepdim=True).clamp_min(_TINY)).to_sparse()
    ends = np.stack([np.repeat(np.arange(graph.count), graph.degrees), graph.indices])
    return x, torch.from_numpy(ends.astype(np.int64))


def _drop_features(x: Tensor, share: float) -> Tensor:
    """Return features of which some columns are zero for all nodes."""
    kept = (torch.rand(x.shape[1]) >= share).float()
    values = x.values() * kept[x.indices()[1]]
    return torch.sparse_coo_tensor(x.indices(), values, x.shape, is_coalesced=True, check_invariants=False)


def _drop_edges(edges: Tensor, share: float) -> Tensor:
    return edges[:, torch.rand(edges.shape[1]) >= share]


def _components(encoder: nn.Module, x: Tensor, edges: Tensor) -> Codes:
    """Return the principal components of what the network makes of all nodes, the largest first."""
    encoder.eval()
    with torch.no_grad():
        outputs = encoder(x, edges).double().numpy()
    centred = outputs - outputs.mean(0)
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    return np.ascontiguousarray((centred @ axes[:, :LENGTH]).astype(np.float32))


def _geometric() -> Any:
    try:
        import torch_geometric
        import torch_geometric.nn
    except ModuleNotFoundError as error:
        raise ConfigError(f"torch-geometric is not installed: {install_line('graph-peers')}") from error
    return torch_geometric
