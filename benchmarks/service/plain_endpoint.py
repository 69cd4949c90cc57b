"""What a tutorial writes: FastAPI, Pillow, the encoder on ONNX Runtime and FAISS, each request by itself.

Its index is better than a tutorial's: a graph instead of a flat scan, so that what is compared is the serving.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import onnxruntime
from fastapi import FastAPI, UploadFile
from PIL import Image

from eigenlens.service.gallery.layout import Gallery

GALLERY_VARIABLE = "PLAIN_GALLERY"
INDEX_VARIABLE = "PLAIN_INDEX"
_LINKS = 32
_EF_SEARCH = 64


def write_index(gallery: Gallery, path: Path) -> None:
    """Build the endpoint's index of a gallery's codes, once."""
    _, generation = gallery.open_current()
    codes = np.ascontiguousarray(generation.codes.codes, dtype=np.float32)
    faiss.normalize_L2(codes)
    index = faiss.IndexHNSWFlat(codes.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.add(codes)
    faiss.write_index(index, str(path))


def create_app() -> FastAPI:
    """The application over the gallery and the index that the environment names."""
    gallery = Gallery(Path(os.environ[GALLERY_VARIABLE]))
    _, generation = gallery.open_current()
    session = onnxruntime.InferenceSession(str(gallery.encoder_path(generation.encoder_id) / "encoder.onnx"))
    size = int(session.get_inputs()[0].shape[1])
    index = faiss.read_index(os.environ[INDEX_VARIABLE])
    index.hnsw.efSearch = _EF_SEARCH
    names = {record.key: record.id for record in gallery.store.page(gallery.store.count())}
    ids = [names[key] for key in generation.keys.tolist()]
    app = FastAPI()

    @app.post("/search")
    async def search(image: UploadFile, k: int = 10) -> dict[str, Any]:
        photo = Image.open(io.BytesIO(await image.read())).convert("RGB").resize((size, size))
        code = session.run(None, {"pixels": np.asarray(photo)[None]})[0]
        faiss.normalize_L2(code)
        scores, rows = index.search(code, k)
        return {"results": [{"id": ids[row], "score": float(score)} for row, score in zip(rows[0], scores[0])]}  # noqa: B905

    return app
