"""Arrays and tables of predictions in, the one results table out.

Ranking, metrics, resamples of patients, calibration, fairness, inference, label error, probes,
shortcuts, and S's own way of computing. NumPy and pandas only: must not know models, films, figures
or papers, nor files but for one recorded benchmark.
"""
