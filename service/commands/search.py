"""`eigenlens search`: ask a running service for images like a file."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import httpx

from service.errors import ServiceError

EPILOG = """examples:
  eigenlens search shoe.jpg
  eigenlens search shoe.jpg --length 16 --k 5
  eigenlens search shoe.jpg --recall 0.95 --filter '{"label": "boots"}'
  eigenlens search shoe.jpg --length 8 --rerank full --json"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("image", metavar="IMAGE", type=Path, help="an image file")
    parser.add_argument("--length", metavar="N|auto", help="prefix length to search (default: the cheapest good plan)")
    parser.add_argument("--k", type=int, default=10, help="results (default: %(default)s)")
    parser.add_argument("--rerank", metavar="N|full", help="rescore a shortlist exactly at N coordinates, or at all")
    parser.add_argument(
        "--recall", metavar="R", type=float, help="share of the exact best that has to be found, 0 to 1"
    )
    parser.add_argument("--max-latency-ms", metavar="MS", type=float, help="what the search itself may take")
    parser.add_argument("--filter", metavar="JSON", help='which images may be found, such as {"label": "boots"}')
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="address of the service (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print the whole answer as JSON")


def run(args: argparse.Namespace) -> int:
    """Search and print a table. Raises: ServiceError, with the service's own words where it refused."""
    try:
        data = args.image.read_bytes()
    except OSError as error:
        raise ServiceError(f"cannot read {args.image}: {error.strerror}") from error
    given = {
        "k": args.k,
        "length": args.length,
        "rerank": args.rerank,
        "target_recall": args.recall,
        "max_latency_ms": args.max_latency_ms,
        "filter": args.filter,
    }
    parameters = {name: str(value) for name, value in given.items() if value is not None}
    answer = _post(args.url, parameters, args.image.name, data)
    if args.json:
        print(json.dumps(answer, indent=2))
        return 0
    plan = answer["plan"]
    rescored = f", {plan['shortlist']} rescored at {plan['rerank']}" if plan.get("rerank") else ""
    print(f"{'score':>8}  id")
    for result in answer["results"]:
        label = result["metadata"].get("label", "")
        print(f"{result['score']:>8.4f}  {result['id']}  {label}".rstrip())
    times = ", ".join(f"{stage} {ms:.1f} ms" for stage, ms in answer["timing_ms"].items())
    expected = f", expected recall {plan['expected_recall']:.3f}" if plan.get("expected_recall") else ""
    print(f"length {plan['length']} ({plan['kind']}){rescored}{expected}; generation {answer['generation']}; {times}")
    return 0


def _post(url: str, parameters: dict[str, str], name: str, data: bytes) -> dict[str, Any]:
    try:
        response = httpx.post(
            f"{url.rstrip('/')}/v1/search", params=parameters, files={"image": (name, data)}, timeout=60
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ServiceError(f"no service answers at {url} ({error}); start one with `eigenlens serve`") from error
    try:
        body: dict[str, Any] = response.json()
    except ValueError:
        raise ServiceError(f"{url} is not an Eigenlens service: it answered {response.status_code}") from None
    if response.status_code != httpx.codes.OK:
        raise ServiceError(f"the service refused ({response.status_code}): {body.get('detail', body)}")
    return body
