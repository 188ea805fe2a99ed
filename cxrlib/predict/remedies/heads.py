"""Remedies that learn a new last layer on the image vectors."""

from __future__ import annotations

from cxrlib.predict.remedies.remedy import Remedy

REMEDIES: dict[str, Remedy] = {}
