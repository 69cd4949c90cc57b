"""Settings: flags win over the environment, misspellings are refused, every setting is a flag."""

from __future__ import annotations

import argparse
import socket
from pathlib import Path

import pytest

from eigenlens.command import main
from eigenlens.processors import cpu_quota
from eigenlens.service.commands import listening, serve
from eigenlens.service.errors import ServiceError, SettingsError
from eigenlens.service.settings import Settings, load_settings
from tests.support.service import build_gallery


def test_a_flag_wins_over_the_environment_and_that_over_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(gallery="g").port == 8080
    monkeypatch.setenv("EIGENLENS_PORT", "9000")
    assert load_settings(gallery="g").port == 9000
    assert load_settings(gallery="g", port="9001").port == 9001
    assert load_settings(gallery="g").key_file == Path("g/admin.key")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [("EIGENLENS_MAX_PIXLES", "1", "EIGENLENS_MAX_PIXLES"), ("EIGENLENS_PORT", "many", "port"),
     ("EIGENLENS_MAX_K", "0", "max_k"), ("EIGENLENS_PORT", "70000", "port")],
)  # fmt: skip
def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str, says: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=says):
        load_settings(gallery="g")


def test_every_setting_is_a_flag_with_a_description() -> None:
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    text = parser.format_help()
    for name, field in Settings.model_fields.items():
        assert f"--{name.replace('_', '-')}" in text
        assert field.description


def test_the_help_names_each_default_and_none_that_a_person_cannot_read() -> None:
    parser = argparse.ArgumentParser()
    serve.configure(parser)
    text = " ".join(parser.format_help().split())
    assert "PydanticUndefined" not in text
    assert "(default: )" not in text
    assert "default: processors, or the container's quota of them, divided by `workers`, plus one" in text
    assert "(default: 8080)" in text
    assert "(default: false)" in text


def test_serving_what_is_not_there_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--gallery", str(tmp_path / "none")]) == 1
    assert "eigenlens build" in capsys.readouterr().err
    assert main(["serve"]) == 1
    assert "gallery" in capsys.readouterr().err


def test_a_port_that_is_taken_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gallery = build_gallery(tmp_path, count=2)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", "--gallery", str(gallery.root), "--port", str(port)]) == 1
    assert "choose another --port" in capsys.readouterr().err


def test_who_calls_before_the_server_is_up_waits_and_is_not_refused() -> None:
    """The address is printed before the event loop takes connections; on a busy machine, callers were refused."""
    with listening.listen("127.0.0.1", 0) as listener:
        address = listener.getsockname()
        with socket.create_connection(address, timeout=5) as caller:
            caller.sendall(b"early")
            taken, _ = listener.accept()
            with taken:
                assert taken.recv(5) == b"early"
        with pytest.raises(ServiceError, match="choose another --port"):
            listening.listen("127.0.0.1", address[1])


def test_answers_do_not_wait_for_nagles_algorithm() -> None:
    """The event loop switches it off for sockets that name their protocol; an answer took 40 ms longer otherwise."""
    with listening.listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP


def test_threads_follow_the_quota_of_a_container(tmp_path: Path) -> None:
    group = tmp_path / "kubepods" / "pod1"
    group.mkdir(parents=True)
    membership = tmp_path / "membership"
    membership.write_text("0::/kubepods/pod1\n")
    assert cpu_quota(tmp_path, membership) is None
    (group / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path, membership) is None
    (tmp_path / "kubepods" / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path, membership) == 1.5
    (tmp_path / "cpu.max").write_text("400000 100000\n")
    assert cpu_quota(tmp_path, membership) == 1.5
    assert cpu_quota(tmp_path, tmp_path / "none") is None


def test_threads_follow_a_quota_of_the_first_version_of_control_groups(tmp_path: Path) -> None:
    membership = tmp_path / "membership"
    membership.write_text("9:name=systemd:/docker/1\n3:cpu,cpuacct:/docker/1\n2:cpuset:/docker/1\n0::/docker/1\n")
    (tmp_path / "cpu").mkdir()  # a container sees its own group at the root
    (tmp_path / "cpu" / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_quota(tmp_path, membership) is None
    (tmp_path / "cpu" / "cpu.cfs_quota_us").write_text("150000\n")
    assert cpu_quota(tmp_path, membership) == 1.5
