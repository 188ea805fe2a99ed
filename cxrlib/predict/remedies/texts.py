"""Remedies that change the prompts and leave the films alone."""

from __future__ import annotations

from cxrlib.predict.remedies.remedy import Remedy

REMEDIES: dict[str, Remedy] = {}
