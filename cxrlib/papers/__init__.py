"""What the two papers print and claim, beside what a run found.

Takes results tables, gives verdicts: the ledger of numbers and claims, the way from every section
of the papers to the place that answers it, the register of the audit, counts of cohorts. Must not
know how predictions are made.
"""
