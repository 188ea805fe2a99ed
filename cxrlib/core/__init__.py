"""What every other package may lean on, and that knows none of them.

Errors that a user can mend, files written in one step, checks of arguments, progress, folders, what
a process used, whether it runs a notebook. Takes and gives plain Python values; must not know what
a cohort, a model or a chapter is.
"""
