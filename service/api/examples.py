"""Examples of the OpenAPI document: a body and an answer for each call, by method and path."""

from __future__ import annotations

from typing import Any

_PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP4z8AAAAMBAQDJ/pLvAAAAAElFTkSuQmCC"
_URI = f"data:image/png;base64,{_PNG}"
_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_REFERENCE = {
    "id": "test-00000.png",
    "media_type": "image/png",
    "width": 28,
    "height": 28,
    "sha256": _SHA,
    "content": f"/v1/images/test-00000.png/content?v={_SHA[:16]}",
    "thumbnail": f"/v1/images/test-00000.png/thumbnail?v={_SHA[:16]}.2",
}
_IMAGE = {**_REFERENCE, "metadata": {"label": "Ankle boot", "split": "test"}}
_PLAN = {
    "length": 16,
    "kind": "hnsw-sq8",
    "effort": 40,
    "shortlist": 100,
    "rerank": 128,
    "exact": False,
    "expected_recall": 0.994,
    "expected_latency_ms": 0.13,
}
_MEASURED = {
    **_PLAN,
    "recall": {"1": 0.998, "10": 0.994, "100": 0.985},
    "recall_low": {"1": 0.995, "10": 0.992, "100": 0.983},
    "latency_ms": {"p50": 0.13, "p95": 0.19, "p99": 0.26},
    "bytes_per_image": 300.0,
}
_SEARCH = {
    "results": [{**_IMAGE, "score": 0.987}],
    "best_percentile": 63.5,
    "query_percentile": 48.2,
    "unlike_everything": False,
    "plan": _PLAN,
    "generation": 3,
    "timing_ms": {"decode": 0.4, "encode": 2.1, "search": 0.2, "total": 2.8},
}
_PROBLEM = {
    "type": "/problems/prefix-length-not-built",
    "title": "Unprocessable Content",
    "status": 422,
    "detail": "prefix length 5 was not built; available: 4, 8, 16",
    "instance": "/v1/search/batch",
    "request_id": "7d4c0b9e",
    "available": [4, 8, 16],
}
_MODEL = {
    "id": "eigenlens",
    "object": "model",
    "created": 1767225600,
    "owned_by": "eigenlens",
    "encoder": "0f1e2d3c4b5a6978",
    "dimensions": 128,
    "is_matryoshka": True,
    "matryoshka_dimensions": [4, 8, 16, 32, 64, 128],
}
_JOB = {
    "id": "4f2a9c01b7de",
    "kind": "rebuild",
    "state": "running",
    "stage": "index",
    "done": 2,
    "total": 5,
    "options": {"lengths": [8, 16, 32], "kinds": {}},
    "error": None,
    "generation": None,
    "created": "2026-01-01T12:00:00.000+00:00",
    "finished": None,
    "result": None,
}
_BACKUP = {"name": "gallery-20260101T120000.000000Z.tar", "bytes": 71000000, "created": "2026-01-01T12:00:00.000+00:00"}
_GENERATION = {
    "number": 3,
    "served": True,
    "created": "2026-01-01T12:00:00+00:00",
    "count": 70000,
    "lengths": [8, 16, 32, 64, 128],
    "encoder": "0f1e2d3c4b5a6978",
    "bytes": 21000000,
}

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/v1/search"): {"id": "test-00000.png", "k": 5, "length": 16, "filter": {"label": "Ankle boot"}},
    ("POST", "/v1/search/batch"): {"k": 3, "searches": [{"image": _PNG}, {"id": "test-00000.png", "length": 16}]},
    ("POST", "/v1/embeddings"): {"model": "eigenlens", "input": [_URI], "dimensions": 4, "encoding_format": "float"},
    ("POST", "/v1/images"): {"images": [{"id": "test-00000.png", "image": _PNG, "metadata": {"price": 80}}]},
    ("PATCH", "/v1/images/{id}"): {"metadata": {"price": 70, "label": None}},
    ("POST", "/v1/session"): {"token": "kV2nW0hZ1cYb7m9tQ4sXe8rA5uLd3fGj"},
    ("POST", "/v1/admin/rebuild"): {"lengths": [8, 16, 32], "kinds": {"32": "ivf-sq8"}},
    ("POST", "/v1/admin/duplicates"): {"cosine": 0.98},
    ("POST", "/v1/admin/import"): {"folder": "2026/january", "rebuild": True},
    ("POST", "/v1/admin/sync"): {"dry_run": True},
    ("POST", "/v1/admin/backups"): {"name": "before-the-sale.tar", "files": False},
    ("POST", "/v1/admin/restore"): {"backup": "before-the-sale.tar"},
}

ANSWERS: dict[tuple[str, str], Any] = {
    ("POST", "/v1/search"): _SEARCH,
    ("POST", "/v1/search/batch"): {
        "answers": [{"status": 200, "answer": _SEARCH}, {"status": 422, "problem": _PROBLEM}],
        "failed": 1,
        "timing_ms": {"total": 5.2},
    },
    ("GET", "/v1/lengths"): {
        "lengths": [
            {
                "length": 16,
                "kind": "hnsw-sq8",
                "bytes": 12600000,
                "bytes_per_image": 180.0,
                "full": False,
                "max_effort": 70000,
                "alone": None,
            }
        ],
        "code_length": 128,
        "count": 70012,
        "pending": 14,
        "removed": 2,
        "generation": 3,
        "plans": [_MEASURED],
        "filters": {"label": ["string"], "price": ["number"]},
        "encoder": "0f1e2d3c4b5a6978",
        "eigenvalues": [0.93, 0.87],
    },
    ("POST", "/v1/embeddings"): {
        "object": "list",
        "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -0.5, 0.5, 0.5]}],
        "model": "eigenlens",
        "usage": {"prompt_tokens": 0, "total_tokens": 0},
    },
    ("GET", "/v1/models"): {"object": "list", "data": [_MODEL]},
    ("GET", "/v1/models/{model}"): _MODEL,
    ("GET", "/v1/eigenfunctions"): {
        "generation": 3,
        "eigenvalues": [0.93, 0.87],
        "low": [-0.2, -0.18],
        "median": [0.01, 0.0],
        "high": [0.21, 0.17],
    },
    ("GET", "/v1/eigenfunctions/{coordinate}"): {
        "coordinate": 1,
        "eigenvalue": 0.93,
        "generation": 3,
        "top": [{**_IMAGE, "value": 0.31}],
        "middle": [{**_IMAGE, "value": 0.01}],
        "bottom": [{**_IMAGE, "value": -0.29}],
        "histogram": {"low": -0.29, "high": 0.31, "shares": [0.2, 0.6, 0.2]},
        "query": {"value": 0.12, "share_below": 0.8},
    },
    ("GET", "/v1/map"): {
        "generation": 3,
        "x": 1,
        "y": 2,
        "axes": 8,
        "left": -0.4,
        "right": 0.5,
        "bottom": -0.3,
        "top": 0.6,
        "count": 70012,
        "counts": [[120, 3410], [52300, 14182]],
        "legend": [{"value": "Bag", "count": 7000}, {"value": "Coat", "count": 6900}],
        "commonest": [[0, 1], [1, -1]],
        "named": [{**_IMAGE, "x": 0.31, "y": 0.12, "rank": 17}],
        "images": [{**_IMAGE, "x": 0.31, "y": 0.12, "rank": 17}],
    },
    ("GET", "/v1/images"): {"images": [_IMAGE], "next": "test-00000.png"},
    ("POST", "/v1/images"): {
        "images": [
            {"id": "test-00000.png", "status": "added"},
        ],
        "failed": [{"id": "notes.txt", "reason": "the 12 bytes are no image that can be read"}],
        "added": 1,
        "replaced": 0,
        "unchanged": 0,
    },
    ("GET", "/v1/images/{id}"): _IMAGE,
    ("PUT", "/v1/images/{id}"): _IMAGE,
    ("PATCH", "/v1/images/{id}"): _IMAGE,
    ("POST", "/v1/session"): {"key": "el_3kT0..."},
    ("POST", "/v1/admin/rebuild"): _JOB,
    ("POST", "/v1/admin/recalibrate"): {
        **_JOB,
        "kind": "recalibrate",
        "stage": "measure",
        "options": {"queries": 2000},
    },
    ("POST", "/v1/admin/duplicates"): {**_JOB, "kind": "duplicates", "stage": "search", "options": {"cosine": 0.98}},
    ("GET", "/v1/facets"): {
        "facets": [
            {
                "field": "label",
                "values": [{"value": "Ankle boot", "count": 7000}, {"value": "Bag", "count": 6998}],
                "others": 8,
            }
        ]
    },
    ("GET", "/v1/exif"): {
        "exif": {"taken": "2026-05-03T14:12:09", "camera": "NIKON D5300", "exposure": "1/250 s", "aperture": "f/5.6"}
    },
    ("GET", "/v1/duplicates"): {
        "groups": [
            {
                "exact": False,
                "images": [
                    {**_IMAGE, "cosine": 1.0},
                    {**_IMAGE, "id": "test-00023.png", "width": 14, "height": 14, "cosine": 0.9931},
                ],
            }
        ],
        "total": 1,
        "cosine": 0.98,
        "generation": 3,
        "found": "2026-11-27T12:00:00+00:00",
        "next": None,
    },
    ("GET", "/v1/admin/jobs"): [_JOB],
    ("GET", "/v1/admin/jobs/{id}"): _JOB,
    ("POST", "/v1/admin/jobs/{id}/cancel"): {**_JOB, "state": "cancelling"},
    ("GET", "/v1/admin/generations"): [_GENERATION],
    ("POST", "/v1/admin/generations/{number}/activate"): _GENERATION,
    ("POST", "/v1/admin/import"): {**_JOB, "kind": "import", "stage": "take in", "options": {"folder": "2026/january"}},
    ("POST", "/v1/admin/sync"): {**_JOB, "kind": "sync", "stage": "take in", "options": {"dry_run": True}},
    ("GET", "/v1/admin/backups"): [_BACKUP],
    ("POST", "/v1/admin/backups"): _BACKUP,
    ("POST", "/v1/admin/restore"): {**_JOB, "kind": "restore", "stage": "unpack", "options": {}},
    ("GET", "/v1/admin/stats"): {
        "images": 70012,
        "searchable": 70012,
        "pending": 14,
        "removed": 2,
        "generation": 3,
        "generations": [2, 3],
        "encoder": "0f1e2d3c4b5a6978",
        "encoders": ["0f1e2d3c4b5a6978"],
        "bytes": {"database": 51000000, "codes": 18000000, "generations": 21000000, "encoders": 900000, "backups": 0},
        "free_bytes": 20000000000,
        "resident_bytes": 180000000,
        "uptime_s": 3600.5,
        "jobs": [],
        "rebuild_advice": None,
        "recent_queries": 2000,
        "live_recall": {
            "share": 0.05,
            "plans": [
                {
                    "plan": {"length": 16, "kind": "ivf-sq8", "exact": False, "expected_recall": 0.9931},
                    "k": 10,
                    "filtered": False,
                    "target_recall": 0.99,
                    "searches": 412,
                    "recall": 0.9934,
                    "recall_low": 0.9891,
                    "recall_high": 0.996,
                    "below_promise": False,
                }
            ],
        },
    },
    ("GET", "/healthz"): {"status": "ok"},
    ("GET", "/readyz"): {"status": "ready", "generation": 3},
}
