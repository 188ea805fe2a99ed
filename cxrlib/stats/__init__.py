"""Arrays and tables of predictions in, the one results table out.

Ranking, metrics, intervals by resamples of patients and by influences, calibration, fairness, the
parts of a gap, inference, small groups, label error, net benefit, watching over time, probes,
shortcuts, the rules of court and use, and S's own way of computing. Must not know models, films,
figures or papers, nor files but for recorded benchmarks.
"""
