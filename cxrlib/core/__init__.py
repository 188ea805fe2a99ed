"""What every other package may lean on, and that knows none of them.

Errors that a user can mend, files written in one step, downloads, checks of arguments, one spelling
for the levels of a column, progress, folders and names by place, what a process used, whether it
runs a notebook. Takes and gives plain Python values and tables; must not know what a cohort, a
model or a chapter is.
"""
