"""Reading the container files as a builder and Compose would: instructions, ignored files, interpolated services."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
_VARIABLE = re.compile(r"\$\{(?P<name>\w+)(?:(?P<operator>:-|:\+)(?P<word>[^${}]*))?\}")


@dataclass(frozen=True)
class Instruction:
    """One instruction of a Dockerfile; `stage` counts its FROM lines from 0."""

    name: str
    value: str
    stage: int

    @property
    def command(self) -> list[str]:
        """The words of the exec form, after a HEALTHCHECK's options."""
        words: list[str] = json.loads(self.value[self.value.index("[") :])
        return words


@dataclass(frozen=True)
class Copied:
    """One COPY from the build context, without its flags."""

    sources: list[str]
    target: str


def instructions(path: Path) -> list[Instruction]:
    """The instructions of a Dockerfile, continued lines joined."""
    lines = [line for line in path.read_text().splitlines() if not line.lstrip().startswith("#")]
    found: list[Instruction] = []
    stage = -1
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        if line.strip():
            name, _, value = line.strip().partition(" ")
            stage += name == "FROM"
            found.append(Instruction(name, value.strip(), stage))
    return found


def final(path: Path, name: str) -> list[Instruction]:
    """The instructions of this name in the last stage, which is the image."""
    found = instructions(path)
    return [i for i in found if i.name == name and i.stage == found[-1].stage]


def copied(path: Path) -> list[Copied]:
    """What a Dockerfile takes from the build context."""
    parts = [shlex.split(i.value) for i in instructions(path) if i.name == "COPY" and "--from=" not in i.value]
    return [Copied(words[:-1], words[-1]) for words in parts]


def assignments(instruction: Instruction) -> dict[str, str]:
    """Names and values of an ENV, ARG or LABEL."""
    pairs = [word.partition("=") for word in shlex.split(instruction.value)]
    return {name: value for name, _, value in pairs}


def in_context(path: str) -> bool:
    """Whether a file enters the build context: the last line of .dockerignore that fits it decides."""
    ancestry = [path, *(p.as_posix() for p in Path(path).parents if p != Path())]
    ignored = False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            fits = _ignore_pattern(pattern.removeprefix("!"))
            if any(fits.fullmatch(name) for name in ancestry):
                ignored = not pattern.startswith("!")
    return not ignored


def context_files(source: str) -> list[str]:
    """The files that a COPY of `source` takes, relative to the repository."""
    path = ROOT / source
    files = [path] if path.is_file() else [f for f in path.rglob("*") if f.is_file() or f.is_symlink()]
    names = [f.relative_to(ROOT).as_posix() for f in files]
    return sorted(name for name in names if in_context(name))


def compose(**variables: str) -> dict[str, Any]:
    """docker-compose.yml with these variables, as Compose would read it."""
    document = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    loaded: dict[str, Any] = _interpolate(document, {"COMPOSE_PROJECT_NAME": document["name"]} | variables)
    return loaded


def _interpolate(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _interpolate(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [_interpolate(item, variables) for item in value]
    if not isinstance(value, str):
        return value

    def replacement(match: re.Match[str]) -> str:
        held = variables.get(match["name"], "")
        if match["operator"] == ":+":
            return match["word"] if held else ""
        if match["operator"] == ":-":
            return held or match["word"]
        return variables[match["name"]]

    text = _VARIABLE.sub(replacement, value)
    assert "$" not in text, f"a substitution that is not understood here: {value}"
    return text


def _ignore_pattern(pattern: str) -> re.Pattern[str]:
    regex = ""
    for part in re.split(r"(\*\*/|\*\*|\*|\?)", pattern.strip("/")):
        regex += {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}.get(part, re.escape(part))
    return re.compile(regex)
