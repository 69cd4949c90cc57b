"""`eigenlens fit`: fit an encoder in closed form: to images on a pretrained backbone, or to the nodes of a graph."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from eigenlens import artifact
from eigenlens.model.backbones.efficientnet import EFFICIENTNET
from eigenlens.model.commands.fit_graph import fit_nodes
from eigenlens.model.config import AugmentationConfig
from eigenlens.model.errors import ConfigError, ImageError
from eigenlens.model.export.feature_extractor import PIXELS, Pixels
from eigenlens.model.heads.choice import held_out, resolve_settings
from eigenlens.model.heads.features import ViewFeatures, cache_features, power_normalise
from eigenlens.model.heads.fine_tune import fine_tuned_backbone
from eigenlens.model.heads.fit import Head, HeadSettings, fit_head, neighbour_graph
from eigenlens.model.heads.frozen import BackboneChoice, describe, open_backbone, open_over_crops
from eigenlens.model.heads.hidden import Hidden, train_hidden
from eigenlens.model.heads.publish import publish_head
from eigenlens.model.images.preprocessing import FRAMINGS
from eigenlens.model.images.sources import Framed, Source, SubsampledSource, open_source
from eigenlens.model.runtime.encoder import Encoder
from eigenlens.model.runtime.sessions import PRECISIONS
from eigenlens.model.training.devices import choose_device

EPILOG = """examples:
  eigenlens fit --images ~/Pictures --out encoders/mine
  eigenlens fit --images shop.tar.gz --positives neighbours --out encoders/shop
  eigenlens fit --images shop.tar.gz --positives neighbours --labels --out encoders/shop
  eigenlens fit --images ~/Pictures --backbone timm:convnext_tiny.fb_in22k --out encoders/mine
  eigenlens fit --images ~/Pictures --fine-tune 500 --out encoders/mine
  eigenlens fit --images ~/Pictures --backbone dino.onnx --backbone-pixels imagenet --out encoders/mine
  eigenlens fit --graph cora.npz --out encoders/cora
  eigenlens fit --graph ~/shop --preset features-only --out encoders/shop

The backbone is EfficientNet-Lite0 (extra `pretrained`), a timm model by its name (extra `timm`), or an ONNX file whose
only input is an image. Its features of the images and of their views are cached in --work; with them a fit takes
seconds. To continue an interrupted fit, run it again. Positives decide what the codes find: views the same object,
neighbours the same kind, both some of each. The last view of each image is a hard one: another cut, angle and light.
Ridge and diffusion time are chosen on held-out photographs, by how well a search with that one finds its photograph or,
with --labels, by the names of the class folders.

A graph is an .npz (adj_*, attr_*, labels; or edge_index, x, y), a folder with edges and nodes (.csv, .tsv, .parquet or
.npy), a folder of OGB's node property prediction, a .graphml, or a .pt of PyTorch Geometric. It is imported into --work
once. Positives are neighbours: codes of nodes are alike where features and neighbours are.
Next: eigenlens build --encoder ENCODER --images SOURCE --gallery GALLERY"""

# Views of the same object keep its colours: they change the brightness, but hardly the hue.
AUGMENTATION = AugmentationConfig(
    crop_area_min=0.3, brightness=0.3, contrast=0.3, saturation=0.2, hue=0.02, grayscale=0.0
)
_CODE_LENGTH = 256


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.epilog = EPILOG
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--images", metavar="SOURCE", action="append", help="images to fit to; repeat it for several sources"
    )
    source.add_argument("--graph", metavar="SOURCE", help="graph whose nodes to fit to")
    parser.add_argument("--out", metavar="ENCODER", type=Path, required=True, help="directory of the new encoder")
    parser.add_argument(
        "--preset",
        choices=("smooth", "smooth-unit", "features-only", "structure-only"),
        help="for a graph: smooth, codes of features over edges (the default); smooth-unit, the same with each node's "
        "smoothed features divided by their length, which helps the shortest codes of some graphs; features-only, "
        "codes that need no edges once fitted, for new nodes whose edges are not known; structure-only, where there "
        "are no features",
    )
    parser.add_argument(
        "--positives",
        choices=("views", "neighbours", "both"),
        default="views",
        help="pairs that get similar codes: views of one image (find the same object), nearest images (find the same "
        "kind) or both (default: %(default)s)",
    )
    parser.add_argument(
        "--backbone",
        metavar="NAME",
        default=EFFICIENTNET,
        help=f"{EFFICIENTNET}, timm:NAME or FILE.onnx (default: %(default)s)",
    )
    onnx = parser.add_argument_group("for a backbone FILE.onnx, if the file does not define it")
    onnx.add_argument(
        "--backbone-pixels",
        type=_pixels,
        metavar="SCALE",
        help="scale of its pixels: imagenet (mean and deviation of ImageNet, the default), unit (0..1), signed "
        "(-1..1), raw (0..255), or MEAN/STD of red, green and blue in 0..1, such as .48,.46,.41/.27,.26,.28",
    )
    onnx.add_argument(
        "--backbone-size",
        type=_count,
        metavar="N",
        help=f"side of its input in pixels (default: 224); of {EFFICIENTNET} too, where it may be any multiple of 32: "
        "half of it has a quarter of the pixels to compute, and codes tell less apart",
    )
    onnx.add_argument("--backbone-output", metavar="TENSOR", help="tensor of the features (default: the only output)")
    parser.add_argument("--work", metavar="DIR", type=Path, help="directory of cached features (default: ENCODER.work)")
    parser.add_argument(
        "--max-images",
        type=_count,
        default=10_000,
        metavar="N",
        help="largest number of images from each source, evenly spread over it (default: 10000)",
    )
    parser.add_argument(
        "--code-length",
        type=_count,
        metavar="N",
        help="coordinates of a code (default: 256, or the number of features if smaller)",
    )
    parser.add_argument(
        "--views",
        type=_count,
        default=4,
        metavar="N",
        help="views of each image, of which the last is a hard one (default: 4)",
    )
    parser.add_argument(
        "--framing",
        choices=tuple(FRAMINGS),
        default="centre",
        help="what the encoder sees of a picture: its largest centred square; the whole, squeezed into a square; or "
        "crops, the largest squares at its centre and at both ends, which finds the same thing more often and takes "
        "three times as long in builds and searches "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--neighbours",
        type=_count,
        metavar="N",
        help="nearest images of each image (default: 50, or a fiftieth of the images if fewer; with `both` 20; with "
        "--labels chosen)",
    )
    parser.add_argument(
        "--ridge", type=_number, metavar="X", help="share of the mean variance added to C (default: chosen)"
    )
    parser.add_argument(
        "--diffusion-time", type=_number, metavar="T", help="power of the eigenvalues (default: chosen)"
    )
    parser.add_argument(
        "--fine-tune",
        type=_count,
        metavar="STEPS",
        help="first train the whole backbone on views of the images, 64 images a step (default: keep it frozen)",
    )
    parser.add_argument(
        "--device", default="auto", help="device for --fine-tune: cpu, cuda, ... (default: cuda if available)"
    )
    parser.add_argument(
        "--head",
        choices=("linear", "mlp"),
        default="linear",
        help="linear: linear in the features, in closed form; mlp: a trained hidden layer beside the features, which "
        "is no better with few images (default: %(default)s)",
    )
    parser.add_argument(
        "--hidden-length", type=_count, default=512, metavar="N", help="width of the hidden layer (default: 512)"
    )
    parser.add_argument(
        "--head-steps", type=_count, default=200, metavar="N", help="training steps of the hidden layer (default: 200)"
    )
    parser.add_argument(
        "--labels",
        action="store_true",
        help="choose the settings by the names of the class folders; the fit itself uses no labels",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        default="float32",
        help="precision of the encoder when it runs; bfloat16 needs OpenVINO, and `eigenlens bench runtime` measures "
        "what it costs (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the views (default: 0)")


def run(args: argparse.Namespace) -> int:
    """Fit an encoder, with progress on standard error. Raises: EigenlensError."""
    if args.out.exists():
        raise artifact.ArtifactExistsError(f"{args.out} already exists and is not overwritten: choose another --out")
    if args.graph is not None:
        return fit_nodes(args)
    if args.preset is not None:
        raise ConfigError("--preset is for graphs; fit --graph SOURCE")
    sources: list[Source] = [SubsampledSource(open_source(spec), args.max_images) for spec in args.images]
    if args.framing == "whole":
        sources = [Framed(source, args.framing) for source in sources]
    work = args.work or args.out.with_name(f"{args.out.name}.work")
    choice = BackboneChoice(args.backbone, args.backbone_pixels, args.backbone_size, args.backbone_output)
    backbone = _backbone(choice, sources, args, work)
    print(f"backbone {args.backbone}: {describe(backbone)}", file=sys.stderr)
    if args.framing == "crops":  # a head is fitted to the centres and serves the mean over the squares as well
        print(
            "the encoder will see three squares of each picture: builds and searches encode at a third of the speed, "
            "and the fit takes no longer",
            file=sys.stderr,
        )
    code_length = args.code_length or min(_CODE_LENGTH, backbone.code_length)
    if code_length > backbone.code_length:
        raise ConfigError(f"--code-length is at most {backbone.code_length}, the number of features")
    views = 0 if args.positives == "neighbours" else args.views
    caches = [
        cache_features(
            source, backbone, views=views, hard=True, augmentation=AUGMENTATION, seed=args.seed, directory=work
        )
        for source in sources
    ]
    _print_skipped(caches)
    features = power_normalise(np.concatenate([cache.values for cache in caches]))
    labels = [label for cache in caches for label in cache.labels] if args.labels else None
    settings, head = _fit(features, labels, args, code_length=code_length)
    seeing = open_over_crops(backbone, work) if args.framing == "crops" else backbone
    published = publish_head(
        head,
        args.out,
        backbone=seeing,
        properties={
            "diffusion_time": settings.diffusion_time,
            "precision": args.precision,
            "images": ", ".join(args.images),
            "training_images": len(features),
            "training": asdict(settings)
            | {"head": args.head, "views": views, "hard_views": min(views, 1)}
            | {"augmentation": AUGMENTATION.model_dump(mode="json")}
            | ({"hidden_length": args.hidden_length, "head_steps": args.head_steps} if args.head == "mlp" else {}),
        },
        pixels=_sample_pixels(Framed(sources[0], args.framing), backbone),
        preprocessing=FRAMINGS[args.framing],
    )
    top = ", ".join(f"{x:.3f}" for x in head.eigenvalues[:8].tolist())
    print(f"encoder {published.id}: {code_length} coordinates from {len(features)} images, eigenvalues {top}, ...")
    print(f"next: eigenlens build --encoder {args.out} --images SOURCE --gallery GALLERY", file=sys.stderr)
    return 0


def _backbone(choice: BackboneChoice, sources: Sequence[Source], args: argparse.Namespace, work: Path) -> Encoder:
    if not args.fine_tune:
        return open_backbone(choice, work)
    return fine_tuned_backbone(
        choice,
        sources,
        steps=args.fine_tune,
        augmentation=AUGMENTATION,
        seed=args.seed,
        device=choose_device(args.device),
        work=work,
    )


def _fit(
    features: NDArray[np.float32], labels: list[str] | None, args: argparse.Namespace, *, code_length: int
) -> tuple[HeadSettings, Head]:
    if args.head == "linear":
        settings = resolve_settings(features, args.positives, labels=labels, fixed=_fixed(args))
        return settings, fit_head(features, settings, code_length=code_length)

    def train_on(part: NDArray[np.float32], settings: HeadSettings) -> Hidden:
        graph = neighbour_graph(part, settings)
        return train_hidden(
            part,
            positives=settings.positives,
            graph=graph,
            width=args.hidden_length,
            steps=args.head_steps,
            seed=args.seed,
        )

    def without_held_out(settings: HeadSettings) -> Hidden:
        return train_on(np.delete(features, held_out(len(features)), axis=0), settings)

    settings = resolve_settings(features, args.positives, labels=labels, fixed=_fixed(args), hidden=without_held_out)
    return settings, fit_head(features, settings, code_length=code_length, hidden=train_on(features, settings))


def _fixed(args: argparse.Namespace) -> dict[str, Any]:
    """Return the settings that flags set."""
    names = ("neighbours", "ridge", "diffusion_time")
    return {name: value for name, value in vars(args).items() if name in names and value is not None}


def _sample_pixels(source: Source, backbone: Encoder) -> NDArray[np.uint8]:
    loaded = (image.load(backbone.image_size) for image in source)
    return np.stack(list(islice((pixels for pixels in loaded if not isinstance(pixels, ImageError)), 4)))


def _print_skipped(caches: Sequence[ViewFeatures]) -> None:
    skipped = [item for cache in caches for item in cache.skipped]
    if skipped:
        count = "1 image" if len(skipped) == 1 else f"{len(skipped)} images"
        print(f"skipped {count} that cannot be used:", file=sys.stderr)
        for id, reason in skipped[:20]:
            print(f"  {id}: {reason}", file=sys.stderr)
        if len(skipped) > 20:
            print(f"  ... and {len(skipped) - 20} more", file=sys.stderr)


def _count(text: str) -> int:
    if not text.isdigit() or not 1 <= int(text) <= 65536:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 1 to 65536")
    return int(text)


def _number(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1e6:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number from 0 to 1000000")
    return number


def _pixels(text: str) -> Pixels:
    if text in PIXELS:
        return PIXELS[text]
    try:
        mean, std = (tuple(float(x) for x in part.split(",")) for part in text.split("/"))
    except ValueError:
        mean = std = ()
    if not len(mean) == len(std) == 3 or min(std) <= 0:
        raise argparse.ArgumentTypeError(
            f"'{text}' is none of {', '.join(PIXELS)} and no MEAN/STD as .5,.5,.5/.2,.2,.2"
        )
    return Pixels((mean[0], mean[1], mean[2]), (std[0], std[1], std[2]))
