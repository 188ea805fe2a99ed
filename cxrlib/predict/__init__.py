"""Embeddings or films in, one table of predictions out.

Prompts and zero-shot, wordings, heads and fine-tuning, the drain detector, and the training of the
small models of this book. Must not know the papers' numbers, figures or chapters.
"""
