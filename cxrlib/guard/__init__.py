"""What of credentialed data may be shown.

The latch (:mod:`.latch`) closes when a credentialed cohort is loaded; from then on texts, tables
and pictures pass through here and lose what rests on fewer than ten images or patients
(:mod:`.suppression`). :mod:`.register` knows what must not leave at all, however it is written
(:mod:`.spellings`). Must not know what shows
things, nor how numbers came about.
"""

from cxrlib.guard.latch import (
    FEW,
    LOOKED_AT,
    MARK,
    MIN_CELL,
    GuardError,
    active,
    counted,
    frames_shown_by,
    n_of_m,
    protect,
    refuse,
    text,
)
from cxrlib.guard.suppression import (
    COUNTS,
    NEEDS_COUNT,
    ROW_LEVEL,
    SUPPRESSED,
    bins,
    cover,
    extremes,
    in_blocks,
    presentable,
    suppress,
)
