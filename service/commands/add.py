"""`eigenlens add`: upload image files and folders to a running service."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from tqdm import tqdm

from eigenlens.service.api.images import FolderAnswer
from eigenlens.service.client.upload_progress import UploadProgress
from eigenlens.service.client.uploads import UploadOptions, merged, of_folder
from eigenlens.service.commands.connection import DONE_IN_PART, configure_connection, connect, print_json
from eigenlens.service.commands.options import configure_report, print_report
from eigenlens.service.errors import ServiceError

EPILOG = """examples:
  eigenlens add boot.jpg --key-file GALLERY/admin.key
  eigenlens add ~/Pictures --prefix pictures/
  eigenlens add boot.jpg --metadata '{"price": 80}'
  eigenlens add ~/Pictures --continue

The id of an image is the prefix and then its path below the folder. The next search finds the images that the
progress counts. What is an image is decided by content: JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIC and JPEG 2000 are
taken under any name, and videos, raw files and the like are counted. Images that are in the gallery with the same
content and metadata stay unchanged, so you can run the command again; with --continue, these are not even sent."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("paths", metavar="PATH", type=Path, nargs="+", help="an image file, or a folder of them")
    parser.add_argument("--prefix", default="", help="beginning of every id, such as pictures/")
    parser.add_argument(
        "--metadata", metavar="JSON", type=_object, help="metadata of all images; the top folder of each is its label"
    )
    parser.add_argument("--follow-links", action="store_true", help="upload the folders that links lead to as well")
    parser.add_argument(
        "--continue", dest="resume", action="store_true", help="do not send images that the gallery has already"
    )
    configure_report(parser, json=False)
    configure_connection(parser)


def run(args: argparse.Namespace) -> int:
    """Upload the images and print those that failed. Raises: ServiceError."""
    for path in args.paths:
        if not path.exists():
            raise ServiceError(f"there is no {path}")
    options = UploadOptions(args.prefix, args.metadata, args.follow_links, args.resume)
    answers: list[FolderAnswer] = []
    with connect(args) as client:
        for path in args.paths:
            with tqdm(desc=str(path), unit="B", unit_scale=True, disable=args.json) as bar:

                def show(progress: UploadProgress, bar: tqdm[Any] = bar) -> None:
                    bar.total = progress.total_bytes
                    bar.set_postfix_str(f"{progress.images}/{progress.total_images} images", refresh=False)
                    bar.update(progress.bytes - bar.n)

                answers.append(client.add_folder(path, options=options, on_progress=show))
    answer = of_folder(merged(answers), [])
    answer.skipped = [entry for one in answers for entry in one.skipped]
    report = answer.report()
    if args.json:
        print_json({**answer.model_dump(mode="json"), "report": report.sentence(), "skipped_counts": report.skipped})
    else:
        print_report(report, args)
    if answer.failed:
        return DONE_IN_PART if report.taken else 1
    return 0 if report.taken else 1


def _object(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"'{text}' is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(f"'{text}' is not a JSON object")
    return value
