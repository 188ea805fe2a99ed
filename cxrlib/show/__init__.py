"""What a reader sees of a table: words, tables, figures, interactive figures.

Takes results tables, gives outputs of a notebook (or text, in a script), all of which pass the
guard. Computes no statistic, and must not know where a table came from.
"""
