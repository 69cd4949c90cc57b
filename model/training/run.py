"""A run on disk: its configuration, metrics and checkpoint while it trains, an artifact when it is finished.

RUN/
  run.json             images or graph, and configuration, written first
  metrics.jsonl        one record a line
  events/              the metrics as TensorBoard events
  init.safetensors     weights that the backbone starts from, where `init` names any; removed when the run is finished
  basis.safetensors    of a graph: which directions of its smoothed features the network sees
  checkpoint.pt        replaced atomically; removed when the run is finished
  network.safetensors  final weights
  summary.json, .png   what the finished run found (model/export/summary.py)
  manifest.json        written last: its presence says that the run is finished
  cache/               decoded images, or the inputs of nodes; may be removed, and is made again when needed
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from eigenlens import artifact
from eigenlens.model.backbones.checkpoint import first_weights
from eigenlens.model.backbones.mlp import MLP
from eigenlens.model.backbones.registry import require_backbone
from eigenlens.model.config import TrainingConfig, parse_config
from eigenlens.model.errors import ConfigError, TrainingError
from eigenlens.model.network import EncoderNetwork

KIND = "run"
_DESCRIPTION, _METRICS, _WEIGHTS, _CHECKPOINT = "run.json", "metrics.jsonl", "network.safetensors", "checkpoint.pt"
_FIRST_WEIGHTS, _BASIS = "init.safetensors", "basis.safetensors"


class Run:
    """A training run on disk, opened.

    run = Run.start(path, images="fashion-mnist:train", config=load_config("fashion-demo", []))
    network = train(run, PairSampler(pixels, run.config, device=device), device=device)

    Attributes:
        images: their source; empty where the run is of a graph.
        graph: its source; empty where the run is of images.
    """

    def __init__(self, path: Path) -> None:
        """Open the run at `path`. Raises: TrainingError, if there is none."""
        self.path = path
        try:
            description = json.loads((path / _DESCRIPTION).read_text())
        except FileNotFoundError:
            raise TrainingError(f"there is no training run at {path}; start one with `eigenlens train`") from None
        except (OSError, ValueError) as error:
            raise TrainingError(f"{path / _DESCRIPTION} cannot be read: {error}") from error
        try:
            config = description["config"]
            self.images, self.graph = str(description.get("images", "")), str(description.get("graph", ""))
        except (KeyError, TypeError, AttributeError):
            raise TrainingError(f"{path / _DESCRIPTION} does not describe a run: start it anew") from None
        if not (self.images or self.graph):
            raise TrainingError(f"{path / _DESCRIPTION} names neither images nor a graph: start it anew")
        self.config = parse_config(_of_today(config))
        self._made_from: dict[str, str] = description.get("made_from", {})

    @classmethod
    def start(cls, path: Path, *, images: str = "", graph: str = "", config: TrainingConfig) -> Run:
        """Make a new run directory, with a copy of what the backbone starts from: resuming needs nothing else.

        Args:
            images, graph: what it is trained on, one of the two.

        Raises: TrainingError, if anything is there already; ConfigError, if there is no such backbone, it does not take
            what it is to be trained on, or the weights that it is to start from do not fit.
        """
        require_backbone(config.backbone)
        _require_fit(config, nodes=bool(graph))
        if path.is_dir() and any(path.iterdir()):
            raise TrainingError(f"{path} is not empty: continue that run with --resume, or choose another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingError(f"a run cannot be kept at {path}: {error.strerror}") from error
        subject = {"graph": graph} if graph else {"images": images}
        description: dict[str, Any] = {**subject, "config": config.model_dump(mode="json")}
        if config.init is not None:
            weights, digest = first_weights(config.init, config.backbone)
            save_file(weights, path / _FIRST_WEIGHTS)
            description["made_from"] = {"init": digest}
        artifact.write_atomic(path / _DESCRIPTION, json.dumps(description, indent=2).encode())
        return cls(path)

    @property
    def cache(self) -> Path:
        """Directory of the pixel cache, or of the inputs of nodes."""
        return self.path / "cache"

    @property
    def finished(self) -> bool:
        """Whether the final weights are there."""
        return (self.path / artifact.MANIFEST).exists()

    @property
    def metrics(self) -> Path:
        """The metrics file, one JSON record a line."""
        return self.path / _METRICS

    @property
    def events(self) -> Path:
        """Directory of the TensorBoard events."""
        return self.path / "events"

    def require_finished(self) -> None:
        """Check that the run is finished. Raises: TrainingError."""
        if not self.finished:
            raise TrainingError(f"the run at {self.path} is not finished; continue it with `eigenlens train --resume`")

    def build_network(self) -> EncoderNetwork:
        """Build the network with fresh weights."""
        return EncoderNetwork(
            self.config.backbone,
            hidden_length=self.config.hidden_length,
            hidden_layers=self.config.hidden_layers,
            code_length=self.config.code_length,
        )

    def first_weights(self) -> dict[str, Tensor]:
        """Load what the backbone starts from; empty for fresh weights. Raises: TrainingError, if it was removed."""
        if self.config.init is None:
            return {}
        try:
            return load_file(self.path / _FIRST_WEIGHTS)
        except (OSError, SafetensorError) as error:
            raise TrainingError(f"{self.path / _FIRST_WEIGHTS} cannot be read: start the run anew") from error

    def keep_basis(self, compute: Callable[[], NDArray[np.floating[Any]]]) -> NDArray[np.float32]:
        """Return the basis of a graph's features; the first time it is computed and kept. Raises: TrainingError."""
        if not (self.path / _BASIS).exists():
            basis = torch.from_numpy(np.ascontiguousarray(compute(), dtype=np.float32))
            artifact.write_atomic(self.path / _BASIS, save({"basis": basis}))
        return self.basis()

    def basis(self) -> NDArray[np.float32]:
        """Load the basis of a graph's features, (p, columns). Raises: TrainingError, if it cannot be read."""
        try:
            basis: NDArray[np.float32] = load_file(self.path / _BASIS)["basis"].numpy()
        except (OSError, SafetensorError, KeyError) as error:
            raise TrainingError(f"{self.path / _BASIS} cannot be read: start the run anew") from error
        return basis

    def save_checkpoint(self, state: dict[str, Any]) -> None:
        """Replace the checkpoint: a kill at any moment leaves the old one or the new one."""
        buffer = io.BytesIO()
        torch.save(state, buffer)
        artifact.write_atomic(self.path / _CHECKPOINT, buffer.getvalue())

    def load_checkpoint(self) -> dict[str, Any] | None:
        """Load the checkpoint, or None before the first."""
        try:
            state: dict[str, Any] = torch.load(self.path / _CHECKPOINT, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            return None
        except Exception as error:  # a damaged file makes torch raise errors of many kinds
            raise TrainingError(
                f"{self.path / _CHECKPOINT} is damaged: remove it and --resume starts from the first step"
            ) from error
        return state

    def append_metrics(self, record: dict[str, Any]) -> None:
        """Add one record to the metrics file."""
        with self.metrics.open("a") as f:
            f.write(json.dumps(record) + "\n")

    def truncate_metrics(self, step: int) -> None:
        """Remove the records after `step`: a resumed run writes them again."""
        if self.metrics.exists():
            lines = [line for line in self.metrics.read_text().splitlines() if line.endswith("}")]
            records = [line for line in lines if json.loads(line)["step"] <= step]
            artifact.write_atomic(self.metrics, "".join(f"{line}\n" for line in records).encode())

    def finish(self, network: EncoderNetwork) -> None:
        """Write the final weights and seal the run."""
        save_file({name: t.contiguous() for name, t in network.state_dict().items()}, self.path / _WEIGHTS)
        artifact.seal(
            self.path,
            kind=KIND,
            made_from=self._made_from,
            properties={
                **({"graph": self.graph} if self.graph else {"images": self.images}),
                "config": self.config.model_dump(mode="json"),
            },
            only=(_DESCRIPTION, _METRICS, _WEIGHTS, *((_BASIS,) if self.graph else ())),
        )
        for name in (_CHECKPOINT, _FIRST_WEIGHTS):
            (self.path / name).unlink(missing_ok=True)

    def load_network(self) -> tuple[artifact.Artifact, EncoderNetwork]:
        """Load the finished run's artifact and network. Raises: TrainingError, if it is not finished; ArtifactError."""
        self.require_finished()
        run_artifact = artifact.read(self.path, kind=KIND)
        network = self.build_network()
        network.load_state_dict(load_file(run_artifact.file(_WEIGHTS)))
        return run_artifact, network


def _require_fit(config: TrainingConfig, *, nodes: bool) -> None:
    """Check that the backbone takes nodes, or images. Raises: ConfigError."""
    if nodes != (config.backbone == MLP):
        raise ConfigError(
            f"backbone '{config.backbone}' takes images: train on a graph with --config nodes or --set backbone={MLP}"
            if nodes
            else f"backbone '{MLP}' takes nodes: give --graph, or choose a backbone of images"
        )
    if nodes and config.closed_form.basis == "features" and config.spectrum.leading:
        raise ConfigError("spectrum.leading is of images: leave it 0 for a graph, as --config nodes does")


def _of_today(config: Any) -> Any:
    """Return a stored configuration without the settings that are gone, where they had no effect.

    What is absent is stored as null; `spectrum.one_scale` was a setting for a while.
    """
    if not isinstance(config, dict):
        return config
    present = {name: _of_today(value) for name, value in config.items() if value is not None}
    return {name: value for name, value in present.items() if (name, value) != ("one_scale", False)}
