"""Arrays and tables of predictions in, the one results table out.

Ranking, metrics, resamples of patients, calibration, fairness, inference, probes, shortcuts, and
S's own way of computing. NumPy and pandas only: must not know models, films, files, figures or
papers.
"""
