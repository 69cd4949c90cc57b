"""Settings of a fit to a graph, and the presets that a trial over six graphs found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class GraphSettings:
    """How codes of nodes are fitted.

    Attributes:
        hops: k, how often the features are smoothed over the edges before the code is linear in them.
        pair_hops: m, even; a node and its neighbours up to m hops away are positives of each other.
        ridge: rho, added to C in every direction, in shares of the mean variance. The functions with the largest
            eigenvalues of a real graph tell tiny components apart; a strong ridge keeps the code from them. The most,
            where a share is given.
        ridge_share: rho is less where the variance spreads over many directions: this share of the variance of a
            direction as the variance meets it, tr(C²) / tr(C). None leaves rho as it is.
        diffusion_time: t, coordinate j is scaled by eigenvalue_j ** t; the least, where a dimension is given.
        effective_dimension: t is longer where the variance of codes would spread over more coordinates than that: many
            with eigenvalues alike tell noise apart. None leaves t as it is.
        unit_functions: a node's smoothed features, seen in the basis, are divided by their length before the code is
            linear in them: those of a node whose neighbours differ from it count as much as any.
        structure_only: the features are random vectors, and the edges all that there is.
        code_length: coordinates of a code.
        basis_length: directions of the smoothed features that the code is sought in.
        precision: of the smoothing; sums are float64 in any case.
        seed: of random numbers.
    """

    hops: int = 2
    pair_hops: int = 2
    ridge: float = 3.0
    ridge_share: float | None = None
    diffusion_time: float = 1.5
    effective_dimension: float | None = None
    unit_functions: bool = False
    structure_only: bool = False
    code_length: int = 256
    basis_length: int = 512
    precision: str = "float32"
    seed: int = 0


PRESETS = {
    "smooth": GraphSettings(ridge_share=0.1875, effective_dimension=32.0),
    "smooth-unit": GraphSettings(ridge_share=0.1875, effective_dimension=32.0, unit_functions=True, basis_length=256),
    "features-only": GraphSettings(hops=0, pair_hops=4, ridge=1.0),
    "structure-only": GraphSettings(hops=16, structure_only=True),
}
"""`smooth`, for features over edges, and `smooth-unit`, better on some graphs at the shortest lengths; `features-only`,
whose codes need no edges once fitted; `structure-only`."""
