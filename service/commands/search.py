"""`eigenlens search`: search a running service for images like a file or like an image of its gallery."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from eigenlens.service.client.calls import Example, NodeQuery, SearchOptions
from eigenlens.service.commands.connection import configure_connection, connect, print_json
from eigenlens.service.commands.options import plain
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens search shoe.jpg
  eigenlens search shoe.jpg --length 16 --k 5
  eigenlens search shoe.jpg --recall 0.95 --filter '{"label": "Ankle boot"}'
  eigenlens search shoe.jpg --length 8 --rerank full --json
  eigenlens search street.jpg --crop 0.25,0.5,0.75,1
  eigenlens search --id test-00000.png --group-duplicates 0.98 --offset 10
  eigenlens search --like test-00000.png --like shoe.jpg --unlike test-00023.png
  eigenlens search --features page.json --neighbours 12,507"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("image", metavar="IMAGE", type=Path, nargs="?", help="an image file")
    parser.add_argument("--id", metavar="ID", help="search with this image of the gallery; the results leave it out")
    parser.add_argument(
        "--like",
        metavar="FILE|ID",
        action="append",
        default=[],
        help="more like these: an image file or an image of the gallery; may be repeated",
    )
    parser.add_argument(
        "--unlike", metavar="FILE|ID", action="append", default=[], help="less like those, with --like; may be repeated"
    )
    parser.add_argument(
        "--features", metavar="FILE", type=Path, help="search a gallery of nodes with the features in a JSON file"
    )
    parser.add_argument(
        "--neighbours",
        metavar="ID,ID,...",
        help="ids of the node's neighbours in the gallery, with --features or alone",
    )
    parser.add_argument(
        "--length",
        type=_length,
        metavar="N|auto",
        help="prefix length (default: auto, the fastest plan that meets the targets)",
    )
    parser.add_argument("--k", type=int, default=10, metavar="N", help="number of results (default: %(default)s)")
    parser.add_argument("--offset", type=int, metavar="N", help="number of results to skip")
    parser.add_argument("--min-score", type=float, metavar="S", help="drop results with a lower score, -1 to 1")
    parser.add_argument(
        "--min-similarity",
        type=float,
        metavar="P",
        help="drop results at a lower percentile of similarity, 0 to 100",
    )
    parser.add_argument(
        "--crop",
        metavar="L,T,R,B",
        type=_edges,
        help="search for a part of IMAGE: left, top, right and bottom as shares of it, such as 0.25,0,0.75,0.5",
    )
    parser.add_argument(
        "--group-duplicates", type=float, metavar="C", help="group images whose codes have at least this cosine"
    )
    parser.add_argument(
        "--rerank",
        type=_rerank,
        metavar="N|full",
        help="rescore a shortlist exactly with N coordinates, or with all of them",
    )
    parser.add_argument(
        "--recall", metavar="R", type=float, help="share of the exact best results that the search must find, 0 to 1"
    )
    parser.add_argument("--max-latency-ms", metavar="MS", type=float, help="limit on the time of the search itself")
    parser.add_argument("--filter", metavar="JSON", help='condition on metadata, such as {"label": "Ankle boot"}')
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Search and print a table. Raises: ServiceError, with the service's message if it refuses the search."""
    node = _node(args)
    queries = [query for query in (args.image, args.id, node) if query is not None]
    if len(queries) + bool(args.like) != 1:
        raise ServiceError("give an image file, --id, --like, or --features and --neighbours of a node")
    if args.unlike and not args.like:
        raise ServiceError("--unlike says what results are less like; give --like too")
    with connect(args) as client:
        if queries:
            answer = client.search(queries[0], **_options(args))
        else:
            answer = client.search_like(_examples(args.like), _examples(args.unlike), **_options(args))
    if args.json:
        print_json(answer)
        return 0
    if answer.unlike_everything:
        print(
            "Nothing here looks like this picture: its code lies farther out than those of "
            f"{100 - (answer.query_percentile or 0):.3g} % of the gallery's images."
        )
    print(f"{'score':>8}  id")
    for result in answer.results:
        label = (result.metadata or {}).get("label", "")
        same = f"  and {len(result.duplicates)} nearly the same" if result.duplicates else ""
        print(f"{result.score:>8.4f}  {plain(result.id)}  {plain(str(label))}{same}".rstrip())
    plan = answer.plan
    rescored = f", {plan.shortlist} rescored at {plan.rerank}" if plan.rerank else ""
    expected = f", expected recall {plan.expected_recall:.3f}" if plan.expected_recall else ""
    times = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in (answer.timing_ms or {}).items())
    print(f"length {plan.length} ({plan.kind}){rescored}{expected}; generation {answer.generation}; {times}")
    return 0


def _node(args: argparse.Namespace) -> NodeQuery | None:
    """Return the node that is searched for; None if there is none. Raises: ServiceError."""
    node: NodeQuery = {}
    if args.features is not None:
        try:
            node["features"] = json.loads(args.features.read_text())
        except (OSError, ValueError) as error:
            raise ServiceError(f"{args.features} is no JSON of features: {error}") from None
    if args.neighbours is not None:
        node["neighbours"] = [id.strip() for id in args.neighbours.split(",") if id.strip()]
    return node or None


def _examples(words: Sequence[str]) -> list[Example]:
    """Return the file of each word, or, where there is none, the id."""
    return [Path(word) if Path(word).is_file() else word for word in words]


def _options(args: argparse.Namespace) -> SearchOptions:
    """Return the options that the user set; the service checks them. Raises: ServiceError."""
    options: dict[str, Any] = {
        "k": args.k,
        "offset": args.offset,
        "length": args.length,
        "rerank": args.rerank,
        "target_recall": args.recall,
        "max_latency_ms": args.max_latency_ms,
        "min_score": args.min_score,
        "min_similarity": args.min_similarity,
        "crop": args.crop,
        "group_duplicates": args.group_duplicates,
        "filter": None if args.filter is None else _object(args.filter),
    }
    return {name: value for name, value in options.items() if value is not None}  # type: ignore[return-value]


def _length(text: str) -> int | str:
    return _number(text, words=("auto",))


def _rerank(text: str) -> int | str:
    return _number(text, words=("full", "none"))


def _edges(text: str) -> list[float]:
    """Parse four shares; the service checks them."""
    try:
        left, top, right, bottom = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not four numbers such as 0.25,0,0.75,0.5") from None
    return [left, top, right, bottom]


def _number(text: str, *, words: tuple[str, ...]) -> int | str:
    """Parse a number of coordinates, or one of some words."""
    if text in words:
        return text
    if not (text.isascii() and text.isdigit()):
        raise argparse.ArgumentTypeError(
            f"'{text}' is not a number of coordinates such as 16, nor {' or '.join(words)}"
        )
    return int(text)


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ServiceError(f"the filter is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise ServiceError("the filter is not a JSON object")
    return value
