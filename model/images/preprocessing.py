"""The version of preprocessing: how files become an encoder's pixels. Codes of two versions must not be compared.

An encoder's manifest records the version that its codes are made with; one without a record is of version 1.

version 1: colour profiles are ignored, transparency is laid on white, 16-bit samples keep their high byte.
version 2: colours are sRGB's, the ground of transparency suits the picture, deep samples are shown by their real range.
"""

from __future__ import annotations

Preprocessing = int
LATEST: Preprocessing = 2
FIRST: Preprocessing = 1
