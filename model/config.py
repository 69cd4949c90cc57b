"""The training configuration: one typed table, read from a preset or a TOML file, misspellings refused."""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from eigenlens.model.errors import ConfigError

PRESETS = Path(__file__).parent / "presets"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class AugmentationConfig(_Table):
    """How a view is drawn from an image. Strengths s draw a factor from [1 - s, 1 + s]; 0 switches the step off."""

    crop_area_min: float = Field(0.25, gt=0.0, le=1.0, description="smallest share of the area that a crop keeps")
    crop_area_max: float = Field(1.0, gt=0.0, le=1.0, description="largest share of the area that a crop keeps")
    crop_ratio_max: float = Field(4 / 3, ge=1.0, description="crops are up to this many times wider or higher")
    flip: float = Field(0.5, ge=0.0, le=1.0, description="probability of a horizontal flip")
    brightness: float = Field(0.4, ge=0.0, le=1.0)
    contrast: float = Field(0.4, ge=0.0, le=1.0)
    saturation: float = Field(0.4, ge=0.0, le=1.0)
    hue: float = Field(0.1, ge=0.0, le=0.5, description="shift of up to this share of the colour circle")
    jitter: float = Field(0.8, ge=0.0, le=1.0, description="probability that colours are jittered at all")
    grayscale: float = Field(0.2, ge=0.0, le=1.0, description="probability of dropping the colours")
    noise: NonNegativeFloat = Field(0.0, description="standard deviation of Gaussian noise, pixels are in 0..1")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.crop_area_min > self.crop_area_max:
            raise ValueError("crop_area_min must not exceed crop_area_max")
        return self


class NeuralEigenmapConfig(_Table):
    """The paper's objective."""

    name: Literal["neural-eigenmap"] = "neural-eigenmap"
    alpha: NonNegativeFloat = Field(0.25, description="weight of the penalty")
    ordered: bool = Field(True, description="stop gradients so that coordinates are ordered")
    normalise: Literal["coordinate", "sample"] = Field("coordinate", description="what is scaled to unit second moment")


class NestedConfig(_Table):
    """Jointly nested low-rank approximation."""

    name: Literal["nested"] = "nested"
    radius: PositiveFloat = Field(1.0, description="norm of every output")


class SpectralContrastiveConfig(_Table):
    """The spectral contrastive loss."""

    name: Literal["scl"] = "scl"
    radius: PositiveFloat = Field(1.0, description="norm of every output")


class BarlowTwinsConfig(_Table):
    """Barlow Twins."""

    name: Literal["barlow-twins"] = "barlow-twins"
    redundancy: NonNegativeFloat = Field(0.0051, description="weight of the off-diagonal terms")


class SimclrConfig(_Table):
    """SimCLR."""

    name: Literal["simclr"] = "simclr"
    temperature: PositiveFloat = 0.5


class VicregConfig(_Table):
    """VICReg."""

    name: Literal["vicreg"] = "vicreg"
    invariance: NonNegativeFloat = 25.0
    variance: NonNegativeFloat = 25.0
    covariance: NonNegativeFloat = 1.0


class NodePairsConfig(_Table):
    """How positive pairs of nodes are drawn from a graph; of no effect on images."""

    hops: NonNegativeInt = Field(2, description="how often features are smoothed over the edges, before the network")
    steps: PositiveInt = Field(2, description="steps of the walk from a node to its partner; a step may stay")
    noise: NonNegativeFloat = Field(
        3.0, description="variance of the noise on the inputs of both, in shares of the mean variance of a feature"
    )


ObjectiveConfig = (
    NeuralEigenmapConfig | NestedConfig | SpectralContrastiveConfig | BarlowTwinsConfig | SimclrConfig | VicregConfig
)


# Functions that the closed-form step combines.
Basis = Literal["features", "projector"]

# Chosen on validation images: docs/decisions/0008-objective-and-basis.md.
_MOST_PAIRS_FOR_FEATURES = 1_500_000
_BY_BASIS: dict[Basis, dict[str, Any]] = {
    "features": {"neighbours": 20, "ridge": 0.1},
    "projector": {"neighbours": 200, "ridge": 1.0},
}


class SpectrumConfig(_Table):
    """The closed-form Rayleigh-Ritz step at export."""

    views: PositiveInt = Field(2, description="positive pairs drawn per training image to estimate C and R")
    neighbours: NonNegativeInt | None = Field(
        None,
        description="beside two views, pairs are an image and one of its k nearest by the code so far; k is at most a "
        "fiftieth of the images; 0: views only; when absent, 20 for the features and 200 for the outputs",
    )
    basis: Basis | None = Field(
        None,
        description="functions that are combined: the backbone's features, or the projector's outputs, which tell more "
        "after long training; when absent, the features up to 1.5 million pairs (steps x batch_size), then the outputs",
    )
    leading: NonNegativeInt = Field(
        6,
        description="before those of the features come so many combinations of the projector's outputs, "
        "found by views alone and not scaled; 0: none",
    )
    leading_ridge: NonNegativeFloat = Field(0.01, description="the ridge of these")
    ridge: NonNegativeFloat | None = Field(
        None,
        description="added to C, relative to each coordinate's variance; when absent, 0.1 for the features and 1 for "
        "the outputs",
    )
    diffusion_time: NonNegativeFloat = Field(1.0, description="t: coordinate j is scaled by eigenvalue_j ** t")
    max_images: PositiveInt = Field(200_000, description="training images used for the estimate, at most")


class ClosedForm(SpectrumConfig):
    """The closed-form step with every setting that it takes."""

    neighbours: NonNegativeInt
    basis: Basis
    ridge: NonNegativeFloat


class TrainingConfig(_Table):
    """Everything that a run depends on, besides its images or its graph."""

    seed: NonNegativeInt = 0
    image_size: PositiveInt = Field(64, ge=8, le=1024, description="side of the network's input, in pixels")
    cache_size: PositiveInt | None = Field(None, description="side of cached images; image_size when absent")
    backbone: str = "small-conv"
    init: str | None = Field(
        None,
        description="a checkpoint that the backbone starts from, .pth or .safetensors; "
        "`pretrained`: the weights that it is published with; fresh weights when absent",
    )
    code_length: PositiveInt = Field(256, ge=2, le=65536)
    hidden_length: PositiveInt = Field(1024, description="width of the projector's hidden layers")
    hidden_layers: NonNegativeInt = 2
    objective: Annotated[ObjectiveConfig, Field(discriminator="name")] = VicregConfig()
    steps: PositiveInt = Field(2000, description="optimisation steps; each takes batch_size images")
    batch_size: PositiveInt = Field(512, ge=2, description="images of a step, over all processes")
    chunks: PositiveInt = Field(1, description="parts of a batch that are in memory in turn; the loss sees the whole")
    optimizer: Literal["adamw", "sgd", "lars"] = "adamw"
    learning_rate: PositiveFloat = Field(2e-3, description="peak rate, after warm-up, before cosine decay")
    weight_decay: NonNegativeFloat = 1e-2
    warmup_steps: NonNegativeInt = 100
    neighbours: NonNegativeInt = Field(
        0,
        description="0: a pair is two views of one image (the same thing); "
        "k: a view of an image and one of an image among its k nearest (the same kind)",
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="of the network; losses are in fp32. auto: bf16 where the device computes in it, else fp32"
    )
    compile: bool = Field(False, description="compile the network with torch.compile")
    checkpoint_every_s: PositiveFloat = 60.0
    augmentation: AugmentationConfig = AugmentationConfig()
    nodes: NodePairsConfig = NodePairsConfig()
    spectrum: SpectrumConfig = SpectrumConfig()

    @model_validator(mode="after")
    def _chunks_of_pairs(self) -> Self:
        if self.batch_size < 2 * self.chunks:
            raise ValueError("chunks must leave two images in each part of a batch")
        return self

    @property
    def closed_form(self) -> ClosedForm:
        """The closed-form step: a basis that is absent follows from the length of training, and the rest from it."""
        given = self.spectrum.model_dump(exclude_none=True)
        long = self.steps * self.batch_size > _MOST_PAIRS_FOR_FEATURES
        basis = self.spectrum.basis or ("projector" if long else "features")
        return ClosedForm(**{"basis": basis, **_BY_BASIS[basis], **given})

    @property
    def cached_side(self) -> int:
        """Side of the square in which training images are kept, in pixels."""
        return self.cache_size or self.image_size


def load_config(name: str | None, overrides: list[str]) -> TrainingConfig:
    """Load the configuration of a preset or TOML file with `key=value` overrides, dots for tables.

    Raises: ConfigError, which names the key and, for an unknown preset, those there are.
    """
    return parse_config(load_table(name, overrides))


def load_table(name: str | None, overrides: list[str]) -> dict[str, Any]:
    """Load a configuration as load_config does, not yet validated. Raises: ConfigError."""
    table: dict[str, Any] = {}
    if name is not None:
        preset = PRESETS / f"{name}.toml"
        path = preset if preset.is_file() else Path(name)
        try:
            table = tomllib.loads(path.read_text())
        except FileNotFoundError:
            names = ", ".join(sorted(p.stem for p in PRESETS.glob("*.toml")))
            raise ConfigError(f"there is no configuration '{name}': give a TOML file or one of {names}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, IsADirectoryError) as error:
            raise ConfigError(f"{path} is not a TOML file: {error}") from error
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator:
            raise ConfigError(f"--set takes key=value, not '{override}'")
        *parents, leaf = key.strip().split(".")
        target = table
        for parent in parents:
            target = target.setdefault(parent, {})
            if not isinstance(target, dict):
                raise ConfigError(f"--set {override}: '{parent}' is not a table")
        target[leaf] = _parse(value)
    return table


def parse_config(table: dict[str, Any]) -> TrainingConfig:
    """Validate a configuration. Raises: ConfigError, which names every wrong key."""
    try:
        return TrainingConfig.model_validate(table)
    except ValidationError as error:
        problems = "; ".join(map(_describe, error.errors()))
        raise ConfigError(f"the configuration is wrong: {problems}") from error


def _describe(details: Any) -> str:
    """Describe a wrong key: its name, what is wrong, and what was probably meant."""
    name = ".".join(map(str, details["loc"])) or "configuration"
    if details["type"] != "extra_forbidden":
        return f"{name}: {details['msg']}"
    *parents, leaf = map(str, details["loc"])
    table = _table_at(parents)
    meant = difflib.get_close_matches(leaf, table, n=1)
    suggestion = f"; did you mean {'.'.join([*parents, meant[0]])}?" if meant else f"; there are {', '.join(table)}"
    return f"{name} is no key of the configuration{suggestion}"


def _table_at(parents: list[str]) -> list[str]:
    """Return the keys of a table of the configuration."""
    table: Any = TrainingConfig.model_json_schema()
    definitions = table["$defs"]
    for parent in parents:
        found = table.get("properties", {}).get(parent, {})
        tagged = {t.get("properties", {}).get("name", {}).get("const"): name for name, t in definitions.items()}
        reference = found.get("$ref", tagged.get(parent, ""))
        table = definitions.get(reference.rpartition("/")[2], found)
    return list(table.get("properties", {}))


def _parse(value: str) -> Any:
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
