"""How chapters become executed notebooks and a book.

Chapters and their parameters, runs and what they leave behind, comparisons and sweeps, pages, the
last look for what must not be shown, reference cards, grading. Knows every other package; none
knows this one.
"""
