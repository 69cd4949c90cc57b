"""The part of `eigenlens fit` that fits an encoder to the nodes of a graph, in closed form."""

from __future__ import annotations

import argparse
import hashlib
import sys
from dataclasses import replace
from pathlib import Path

from eigenlens import artifact
from eigenlens.model.graphs.artifact import KIND, Graph
from eigenlens.model.graphs.fit import fit_graph
from eigenlens.model.graphs.publish import publish_graph_encoder
from eigenlens.model.graphs.settings import PRESETS
from eigenlens.model.graphs.sources.open import open_graph_source
from eigenlens.model.graphs.two_passes import import_graph

_PRESET = "smooth"
_KEY_LENGTH = 8


def fit_nodes(args: argparse.Namespace) -> int:
    """Fit an encoder to a graph, with progress on standard error. Raises: EigenlensError."""
    work = args.work or args.out.with_name(f"{args.out.name}.work")
    graph = open_graph(args.graph, work)
    print_graph(graph)
    given = {
        "code_length": args.code_length,
        "ridge": args.ridge,
        "diffusion_time": args.diffusion_time,
        "seed": args.seed,
    }
    preset = PRESETS[args.preset or _PRESET]
    if args.ridge is not None:
        preset = replace(preset, ridge_share=None)
    if args.diffusion_time is not None:
        preset = replace(preset, effective_dimension=None)
    settings = replace(preset, **{name: value for name, value in given.items() if value is not None})
    codes = fit_graph(graph, settings, work=work)
    published = publish_graph_encoder(codes, args.out, graph=graph, settings=settings)
    top = ", ".join(f"{x:.3f}" for x in codes.eigenvalues[:8])
    length = published.properties["code_length"]
    print(
        f"encoder {published.id}: {length} coordinates from {graph.count} nodes, ridge {codes.ridge:.2f}, "
        f"diffusion time {codes.diffusion_time:.2f}, eigenvalues {top}, ..."
    )
    print(f"next: eigenlens build --encoder {args.out} --graph {args.graph} --gallery GALLERY", file=sys.stderr)
    return 0


def open_graph(spec: str, work: Path) -> Graph:
    """Open a graph that was imported before: itself an artifact, or in `work`; else import it there.

    Raises: SourceError; ArtifactError.
    """
    path = Path(spec).expanduser()
    if (path / artifact.MANIFEST).exists():
        return Graph(path)
    source = open_graph_source(spec)
    target = work / f"{KIND}-{_fingerprint(path)}"
    return Graph(target) if (target / artifact.MANIFEST).exists() else import_graph(source, target)


def print_graph(graph: Graph) -> None:
    """Print what a graph has, and what of its source was put right."""
    counts = ((graph.count, "node"), (graph.edges, "edge"), (graph.feature_count, "feature"))
    told = ", ".join(f"{count or 'no'} {noun if count == 1 else f'{noun}s'}" for count, noun in counts)
    print(f"{graph.name}: {told}", file=sys.stderr)
    for fault in graph.faults:
        print(f"  {fault}", file=sys.stderr)


def _fingerprint(path: Path) -> str:
    """Return a digest of the names, sizes and times of a source's files: a changed one is imported again."""
    files = sorted(file for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())
    stats = [(str(file.absolute()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return hashlib.sha256(repr(stats).encode()).hexdigest()[:_KEY_LENGTH]
