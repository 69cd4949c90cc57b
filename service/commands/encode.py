"""`eigenlens encode`: encode shards of images, on one machine or on many, for `eigenlens build --codes`."""

from __future__ import annotations

import argparse
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tqdm import tqdm

from eigenlens.model.errors import SourceError
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.open import open_encoder
from eigenlens.model.shards.codes import ENDING, CodesOfShard
from eigenlens.model.shards.encode import encode_shard
from eigenlens.model.shards.inputs import Shard, find_shards, shards_of_part
from eigenlens.service.commands.options import configure_limits, limits_of, parse_positive
from eigenlens.service.gallery.limits import Limits
from eigenlens.service.gallery.nodes import require_images

EPILOG = """examples:
  eigenlens encode --encoder encoders/fashion --images shards --out codes
  eigenlens encode --encoder encoders/fashion --images a.tar b.parquet --out codes
  eigenlens encode --encoder encoders/fashion --images shards --out codes --part $SLURM_ARRAY_TASK_ID/8

Each shard, a tar or a Parquet file, becomes one file of codes, which holds its images too. A file that is there is not
made again: to continue, run the same command again. Parts 0/8 to 7/8 share the shards of eight machines.
Next: eigenlens build --encoder ENCODER --codes codes --gallery GALLERY"""


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    parser.add_argument("--encoder", metavar="ENCODER", type=Path, required=True, help="directory of the encoder")
    parser.add_argument(
        "--images", metavar="SHARDS", type=Path, nargs="+", required=True, help="tars, Parquet files, folders of them"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, required=True, help=f"folder of the files of codes, NAME{ENDING} each"
    )
    parser.add_argument(
        "--part",
        metavar="I/N",
        type=parse_part,
        default=(0, 1),
        help="encode every N-th shard from the I-th, 0 to N - 1 (default: 0/1, all)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=parse_positive,
        help="threads that decode, and threads of the encoder (default: one a processor)",
    )
    configure_limits(parser)


def run(args: argparse.Namespace) -> int:
    """Encode the shards of a part, with progress on standard error. Returns: 1, if one could not be read."""
    threads = args.threads or len(os.sched_getaffinity(0))  # more that decode would hold up the one that reads
    encoder = require_images(open_encoder(args.encoder, threads=threads))
    shards = shards_of_part(find_shards(args.images), *args.part)
    args.out.mkdir(parents=True, exist_ok=True)
    missing = [shard for shard in shards if not _is_encoded(shard, args.out, encoder)]
    images = failed = broken = 0
    with ThreadPoolExecutor(threads) as pool:
        for number, shard in enumerate(missing, 1):
            try:
                counts = _encode(shard, encoder, args.out, pool, limits_of(args), f"{number}/{len(missing)}")
            except SourceError as error:
                print(f"eigenlens: error: {error}", file=sys.stderr)
                broken += 1
                continue
            images, failed = images + counts[0], failed + counts[1]
    print(
        f"encoded {len(missing) - broken} shards, {images} images, {failed} failed; "
        f"{len(shards) - len(missing)} shards were encoded before, {broken} cannot be read"
    )
    print(f"next: eigenlens build --encoder {args.encoder} --codes {args.out} --gallery GALLERY", file=sys.stderr)
    return 1 if broken else 0


def parse_part(text: str) -> tuple[int, int]:
    """Parse I/N."""
    numbers = re.fullmatch(r"(\d+)/(\d+)", text, re.ASCII)
    part, parts = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if parts == 0:
        raise argparse.ArgumentTypeError(f"'{text}' is no part such as 0/8")
    if part >= parts:
        raise argparse.ArgumentTypeError(f"there is no part {text}: they are 0/{parts} to {parts - 1}/{parts}")
    return part, parts


def _encode(
    shard: Shard, encoder: Encoder, out: Path, pool: ThreadPoolExecutor, limits: Limits, place: str
) -> tuple[int, int]:
    """Encode a shard. Returns: how many images it has, and how many of them failed. Raises: SourceError."""
    source = shard.open(max_bytes=limits.max_image_bytes)
    with tqdm(total=len(source), desc=f"{place} {shard.name}", unit="image") as bar:
        path = out / f"{shard.name}{ENDING}"
        return len(source), encode_shard(source, encoder, path, pool, max_pixels=limits.max_pixels, advance=bar.update)


def _is_encoded(shard: Shard, out: Path, encoder: Encoder) -> bool:
    """Return whether a shard's file of codes is there. Raises: SourceError, if it is of another encoder."""
    path = out / f"{shard.name}{ENDING}"
    if not path.exists():
        return False
    if (there := CodesOfShard(path).encoder_id) != encoder.id:
        raise SourceError(f"{path} has codes of the encoder {there}, not of {encoder.id}: give another --out")
    return True
