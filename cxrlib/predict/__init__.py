"""Embeddings or films in, one table of predictions out.

Prompts and zero-shot, wordings, scores from elsewhere (:mod:`.precomputed`), heads and fine-tuning,
the drain detector, policies that turn scores into alarms, remedies for a bias and the court that
tries them, whether what is encoded is used, and the training of the small models of this book. Must
not know the papers' numbers, figures or chapters.
"""
