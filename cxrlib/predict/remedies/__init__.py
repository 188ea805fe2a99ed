"""Remedies: what has been proposed to remove a bias from an image-text model without a new one.

Each is one function of one signature. It is fitted on films of patients apart from the test, and
gives a function that answers other films::

    answer = fit(question, fitting)     # question: Question, fitting: Films
    margins = answer(test)              # (n, k): above 0, or above a threshold, is a yes

The text of a function is what the book prints of it: three sentences, then the code. Vectors are
those that are stored; nothing here reads a film. Must not know how remedies are judged.
"""

from __future__ import annotations

from cxrlib.predict.remedies import decisions, heads, images, texts
from cxrlib.predict.remedies.remedy import Remedy

KNOWN: dict[str, Remedy] = {
    **texts.REMEDIES,
    **images.REMEDIES,
    **heads.REMEDIES,
    **decisions.REMEDIES,
}
"""Name to remedy, in the order of the book."""
