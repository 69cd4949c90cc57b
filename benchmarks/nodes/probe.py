"""What labels say of codes of nodes: a linear probe, nearest neighbours, and labels spread over the edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from eigenlens.benchmarks.common.retrieval import nearest
from eigenlens.model.graphs.smoothing import Smoother

Floats = NDArray[np.floating]
Labels = NDArray[np.int64]
SEEDS = tuple(range(1000, 1010))
QUERIES = 1500
MIN_LABELLED = 40
"""Four in a tenth."""
# Weight decay by which probes are tried; validation nodes choose.
_DECAYS = (1e-3, 1e-4, 1e-5)
_ITERATIONS = 80
_K = 10
_SPREAD, _ROUNDS = (0.5, 0.8, 0.9), 30


@dataclass(frozen=True)
class Split:
    """Rows of the nodes that a probe is fitted to, chosen by and tested on."""

    train: Labels
    validation: Labels
    test: Labels


def splits(labels: Labels, seeds: tuple[int, ...] = SEEDS) -> Iterator[Split]:
    """Yield a split for each seed: of a permutation of the nodes with labels, tenths one, two and the rest."""
    labelled = np.flatnonzero(labels >= 0)
    tenth = len(labelled) // 10
    for seed in seeds:
        order = labelled[np.random.default_rng(seed).permutation(len(labelled))]
        yield Split(order[:tenth], order[tenth : 2 * tenth], order[2 * tenth :])


def probe(codes: Floats, labels: Labels, split: Split) -> Floats:
    """Return the scores of each class for each node, (n, classes), by the probe that validation nodes choose.

    Multinomial logistic regression on codes of mean squared length one, with weight decay.
    """
    scaled = codes / np.sqrt(np.square(codes, dtype=np.float64).sum(1).mean())
    inputs = np.hstack([scaled, np.ones((len(codes), 1))]).astype(np.float32)
    weights = np.zeros((inputs.shape[1], int(labels.max()) + 1))
    best, chosen = -1.0, weights
    for decay in _DECAYS:  # each begins where the stronger one ended
        weights = _fit(inputs[split.train], labels[split.train], weights, decay)
        accuracy = _accuracy(inputs[split.validation] @ weights.astype(np.float32), labels[split.validation])
        if accuracy > best:
            best, chosen = accuracy, weights
    return np.asarray(inputs @ chosen.astype(np.float32))


def probe_accuracy(codes: Floats, labels: Labels, *, seeds: tuple[int, ...] = SEEDS) -> list[float]:
    """Return the accuracy of the probe on the test nodes of each split."""
    return [_accuracy(probe(codes, labels, s)[s.test], labels[s.test]) for s in splits(labels, seeds)]


def precision_at_10(codes: Floats, labels: Labels, *, length: int) -> float:
    """Return the share of the ten nearest by the cosine of prefixes that have the label of the query.

    1,500 nodes search all others, or all where there are fewer.
    """
    labelled = np.flatnonzero(labels >= 0)
    queries = labelled[np.random.default_rng(0).permutation(len(labelled))[:QUERIES]]
    _, rows = nearest(codes[labelled], codes[queries], length=length, k=_K + 1)
    rows = labelled[rows]
    others = np.array([[row for row in found if row != query][:_K] for query, found in zip(queries, rows, strict=True)])
    return float((labels[others] == labels[queries][:, None]).mean())


def vote_accuracy(codes: Floats, labels: Labels, *, length: int) -> list[float]:
    """Return the accuracy on the test nodes of each split of the vote of the ten nearest training nodes."""
    accuracies = []
    for split in splits(labels):
        scores, rows = nearest(codes[split.train], codes[split.test], length=length, k=_K)
        votes = np.zeros((len(split.test), int(labels.max()) + 1))
        np.add.at(votes, (np.arange(len(rows))[:, None], labels[split.train][rows]), scores)
        accuracies.append(_accuracy(votes, labels[split.test]))
    return accuracies


def label_propagation(smoother: Smoother, labels: Labels) -> list[float]:
    """Return the accuracy on the test nodes of labels spread over the edges alone; validation nodes choose how far.

    Source: Zhou et al., Learning with local and global consistency, NeurIPS 2003.
    """
    accuracies = []
    for split in splits(labels):
        known = np.zeros((len(labels), int(labels.max()) + 1), dtype=np.float32)
        known[split.train, labels[split.train]] = 1
        tried = [_spread(smoother, known, share) for share in _SPREAD]
        accuracies.append(_best(tried, labels, split))
    return accuracies


def correct_and_smooth(codes: Floats, smoother: Smoother, labels: Labels) -> list[float]:
    """Return the accuracy on the test nodes of the probe's classes after Correct & Smooth, where validation says so.

    Validation nodes choose how far labels are spread, or not at all.

    Source: Huang et al., Combining label propagation and simple models out-performs graph neural networks, ICLR 2021.
    """
    accuracies = []
    for split in splits(labels):
        scores = probe(codes, labels, split)
        shares = np.exp(scores - scores.max(1, keepdims=True))
        shares /= shares.sum(1, keepdims=True)
        truth = np.eye(shares.shape[1], dtype=np.float32)[labels]
        tried = [scores]
        for share in _SPREAD:
            error = np.zeros_like(shares)
            error[split.train] = truth[split.train] - shares[split.train]
            corrected = shares + _spread(smoother, error, share)
            corrected[split.train] = truth[split.train]
            tried.append(_spread(smoother, corrected, share))
        accuracies.append(_best(tried, labels, split))
    return accuracies


def _spread(smoother: Smoother, values: Floats, share: float) -> Floats:
    """Return values spread over the edges: of each, `share` comes from the neighbours."""
    spread = values.astype(np.float32)
    for _ in range(_ROUNDS):
        spread = share * smoother.smooth(spread.copy(), 1) + (1 - share) * values.astype(np.float32)
    return spread


def _best(tried: list[Floats], labels: Labels, split: Split) -> float:
    chosen = max(tried, key=lambda scores: _accuracy(scores[split.validation], labels[split.validation]))
    return _accuracy(chosen[split.test], labels[split.test])


def _fit(inputs: NDArray[np.float32], labels: Labels, start: Floats, decay: float) -> NDArray[np.float64]:
    """Minimise the cross entropy plus decay times the squared weights, without that of the constant."""
    import scipy.optimize

    truth = np.eye(start.shape[1], dtype=np.float32)[labels]

    def loss(flat: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        weights = flat.reshape(start.shape)
        scores = inputs @ weights.astype(np.float32)
        scores -= scores.max(1, keepdims=True)
        shares = np.exp(scores)
        sums = shares.sum(1, keepdims=True)
        value = float((np.log(sums[:, 0]) - (scores * truth).sum(1)).mean()) + decay * float((weights[:-1] ** 2).sum())
        gradient = (inputs.T @ ((shares / sums - truth) / len(inputs))).astype(np.float64)
        gradient[:-1] += 2 * decay * weights[:-1]
        return value, gradient.ravel()

    options = {"maxiter": _ITERATIONS, "gtol": 1e-5, "ftol": 1e-7}
    result = scipy.optimize.minimize(loss, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    found: NDArray[np.float64] = result.x.reshape(start.shape)
    return found


def _accuracy(scores: Floats, labels: Labels) -> float:
    return float((scores.argmax(1) == labels).mean())
