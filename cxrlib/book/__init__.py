"""How chapters become executed notebooks and a book.

Chapters and their parameters, runs and what they leave behind (record, manifest, dossier),
comparisons and sweeps, pages, the last look for what must not be shown, reference cards, grading,
and the fetching of open data and models. Knows every other package; none knows this one.
"""
