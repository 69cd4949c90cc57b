"""What comes from outside: bounded before it is parsed, refused with a reason, and the service keeps answering."""

from __future__ import annotations

import base64
import io
import socket
import struct
import time
import zlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from eigenlens.service.http.multipart import single_file_of_form
from tests.support.codes import repeatable
from tests.support.service import build_gallery, client_fixture, gallery_fixture, pixels_of, png, serving, settings_of

MAX_BYTES = 100_000


gallery = gallery_fixture(count=10)
client = client_fixture(max_image_bytes=MAX_BYTES, upload_timeout_s=1.0)


def photograph(form: str = "JPEG", side: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.radial_gradient("L").resize((side, side)).convert("RGB").save(buffer, form)
    return buffer.getvalue()


def bomb(side: int) -> bytes:
    """A real PNG of side x side black pixels: small on the wire, side² bytes when decoded."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer = zlib.compressobj(9)
    row = bytes(1 + side // 8)
    pixels = b"".join(packer.compress(row * 1000) for _ in range(side // 1000)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("image", "status", "says"),
    [
        (b"just text, no image\n" * 10, 415, "no image"),
        (b"", 415, "empty"),
        (photograph()[:400], 422, "truncated"),
        (photograph("PNG")[:-200], 422, "truncated"),
        (photograph("GIF")[:20], 415, "no image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "no image"),
        (b"\xff\xd8\xff\xe0" + b"\x00" * 100, None, ""),
        (bomb(24_000), 413, "pixels"),
    ],
    ids=["text", "empty", "short-jpeg", "short-png", "short-gif", "svg", "jpeg-of-zeros", "bomb"],
)
def test_what_is_no_usable_image_is_refused_with_the_reason(
    client: httpx.Client, image: bytes, status: int | None, says: str
) -> None:
    response = client.post("/v1/search", files={"image": ("x.png", image)})
    assert response.headers["content-type"] == "application/problem+json", response.text
    assert response.status_code == status or (status is None and response.status_code in (415, 422))
    assert says in response.json()["detail"]
    assert client.post("/v1/search", files={"image": ("x.png", png(pixels_of(0)))}).status_code == 200


def test_a_50000_x_50000_bomb_is_refused_before_it_is_decoded(tmp_path_factory: pytest.TempPathFactory) -> None:
    gallery = build_gallery(tmp_path_factory.mktemp("bomb"), count=2)
    image = bomb(50_000)
    with serving(settings_of(gallery)) as roomy:
        start = time.monotonic()
        response = roomy.post("/v1/search", files={"image": ("bomb.png", image)})
        assert time.monotonic() - start < 2
    assert response.status_code == 413
    assert "pixels" in response.json()["detail"]


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_every_readable_format_is_searched(client: httpx.Client, form: str) -> None:
    response = client.post("/v1/search", files={"image": ("photograph", photograph(form, side=32))})
    assert response.status_code == 200, response.text


def test_orientation_is_respected(client: httpx.Client) -> None:
    """A turned photograph whose EXIF says so gives the code of the upright one."""
    upright = Image.frombytes("RGB", (32, 32), bytes(range(256)) * 12)
    turned = upright.rotate(90, expand=True)
    exif = Image.Exif()
    exif[0x0112] = 6
    codes = []
    for image, tags in ((upright, Image.Exif()), (turned, exif)):
        buffer = io.BytesIO()
        image.save(buffer, "PNG", exif=tags)
        answer = client.post("/v1/search?include=code", files={"image": ("x.png", buffer.getvalue())}).json()
        codes.append(answer["code"])
    assert codes[0] == pytest.approx(codes[1])


def test_an_image_a_little_over_the_limit_is_refused_however_it_is_sent(client: httpx.Client) -> None:
    image = png(pixels_of(0)) + b"x" * MAX_BYTES
    for response in (
        client.post("/v1/search", files={"image": ("x.png", image)}),
        client.post("/v1/search", json={"image": base64.b64encode(image).decode()}),
    ):
        assert response.status_code == 413
        assert response.json()["type"] == "/problems/too-many-bytes"


@pytest.mark.parametrize("chunked", [False, True])
def test_more_bytes_than_the_limit_are_refused(client: httpx.Client, chunked: bool) -> None:
    head = b'--b\r\nContent-Disposition: form-data; name="image"; filename="x.png"\r\n\r\n'
    body = head + b"x" * (MAX_BYTES * 2) + b"\r\n--b--\r\n"
    content = iter([body[i : i + 1000] for i in range(0, len(body), 1000)]) if chunked else body
    response = client.post("/v1/search", content=content, headers={"Content-Type": "multipart/form-data; boundary=b"})
    assert response.status_code == 413, response.text
    assert response.json()["type"] == "/problems/too-many-bytes"
    assert client.get("/readyz").status_code == 200


def test_a_client_that_stops_sending_is_let_go(client: httpx.Client) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(
            b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 1000\r\n\r\n--b\r\n"
        )
        start = time.monotonic()
        answer = connection.recv(1000)
    assert b" 408 " in answer.splitlines()[0]
    assert time.monotonic() - start < 5


def post_slowly(client: httpx.Client, *, pieces: int, size: int, pause_s: float) -> bytes:
    """Send a body in pieces with pauses between them; return the answer."""
    head = (
        b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nConnection: close\r\n"
        b"Content-Length: %d\r\n\r\n" % (pieces * size)
    )
    body = png(pixels_of(1)).ljust(pieces * size, b"x")
    with socket.create_connection((client.base_url.host, client.base_url.port or 80), timeout=10) as connection:
        connection.sendall(head)
        for piece in range(pieces):
            try:
                connection.sendall(body[piece * size : (piece + 1) * size])
            except OSError:
                break  # it has been refused
            time.sleep(pause_s)
        return connection.recv(1000)


def test_a_slow_line_may_take_longer_than_the_limit_on_a_stall(client: httpx.Client) -> None:
    assert b" 200 " in post_slowly(client, pieces=8, size=5_000, pause_s=0.2).splitlines()[0]


def test_a_client_that_sends_a_byte_now_and_then_is_let_go(client: httpx.Client) -> None:
    assert b" 408 " in post_slowly(client, pieces=60, size=1, pause_s=0.1).splitlines()[0]


@pytest.mark.parametrize(
    ("headers", "content"),
    [
        ({"Content-Type": "multipart/form-data"}, b"x"),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b""),
        ({"Content-Type": "multipart/form-data; boundary=b"}, b"--c\r\n\r\n"),
        (
            {"Content-Type": "multipart/form-data; boundary=b"},
            b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--",
        ),
        ({}, b""),
    ],
)
def test_a_broken_form_is_a_problem_not_a_failure(
    client: httpx.Client, headers: dict[str, str], content: bytes
) -> None:
    response = client.post("/v1/search", content=content, headers=headers)
    assert 400 <= response.status_code < 500, response.text
    assert response.headers["content-type"] == "application/problem+json"


def test_too_many_parts_are_refused(client: httpx.Client) -> None:
    fields = {f"field-{i}": "x" for i in range(50)}
    response = client.post("/v1/search", data=fields, files={"image": ("x.png", png(pixels_of(0)))})
    assert 400 <= response.status_code < 500
    response = client.post("/v1/search", files=[("image", ("x.png", png(pixels_of(0))))] * 5)
    assert 400 <= response.status_code < 500


def test_a_client_that_leaves_in_mid_upload_leaves_no_traceback(
    client: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_connection((client.base_url.host, client.base_url.port or 0)) as connection:
        connection.sendall(
            b"POST /v1/search HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            b"Content-Length: 1000\r\n\r\n--b\r\n"
        )
    for _ in range(20):
        assert client.get("/healthz").status_code == 200
        time.sleep(0.01)
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


FORMS = st.binary(max_size=60) | st.lists(st.sampled_from([b"\r\n", b"--", b"b", b'"', b"\x00"])).map(b"".join)


@repeatable
@given(data=FORMS, boundary=st.sampled_from(["b", "----WebKitFormBoundary7MA4YWxk", "bb"]), more=st.booleans())
def test_a_form_of_one_file_is_read_as_the_whole_parser_reads_it(data: bytes, boundary: str, more: bool) -> None:
    part = b'Content-Disposition: form-data; name="image"; filename="q.jpg"\r\nContent-Type: image/jpeg\r\n\r\n'
    other = b'--%s\r\nContent-Disposition: form-data; name="k"\r\n\r\n3\r\n' % boundary.encode()
    body = b"--%s\r\n" % boundary.encode() + part + data + b"\r\n" + other * more + b"--%s--\r\n" % boundary.encode()
    content_type = f'multipart/form-data; boundary="{boundary}"'
    found = single_file_of_form(content_type, body)
    assert found in (data, None)
    if more or b"\r\n--" + boundary.encode() in data:
        assert found is None
    else:
        assert found == data
    assert single_file_of_form(content_type, body[:-1]) is None
    assert single_file_of_form(content_type, b"x" + body) is None
    assert single_file_of_form("multipart/form-data", body) is None


@pytest.mark.parametrize(
    "head",
    [
        'form-data; name="image"',
        'form-data; name="images"; filename="q"',
        'form-data; name="image"; filename="a\\"b"',
        'form-data; name="image"; filename="q"\r\nContent-Transfer-Encoding: base64',
        "form-data; name=\"image\"; filename*=UTF-8''q",
    ],
)
def test_what_is_written_in_another_way_is_left_to_the_whole_parser(head: str) -> None:
    body = f"--b\r\nContent-Disposition: {head}\r\n\r\ndata\r\n--b--\r\n".encode()
    assert single_file_of_form("multipart/form-data; boundary=b", body) is None
