"""Cohort x model to embeddings on disk, once, at any size.

Takes a cohort and a model, gives arrays in the order of the cohort from a store that survives what
is cut off. On one machine, or on many with Ray; a plan on paper says what it costs. Must not know
what embeddings are used for.
"""
