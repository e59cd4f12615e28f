"""Train, evaluate and compare liver models; needs no Slicer.

data/        from scans and masks to a cache that trainings read
run/         a training seen from outside: options, settings, run folder, process
training/    the networks learn
evaluation/  how good models are, and how a run becomes one
cli/         the command line
py.typed     tells type checkers that all of this is annotated
"""
