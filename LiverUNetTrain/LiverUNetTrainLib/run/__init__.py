"""A training seen from outside; none of it imports torch to watch.

options.py       what is chosen, as arguments of the command line
settings.py      how long, how fast, on what
run_settings.py  what a training was asked for
folder.py        the run folder: all that a training says and keeps
lock.py          who works in it
background.py    a training as a process of its own
"""
