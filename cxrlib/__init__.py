"""Library of the executable companion book on the fairness of CLIP models for chest X-rays."""

__version__ = "0.1.0"
