"""A training seen from outside: options, settings, run folder, process. Watching it does not import torch.

options.py       what the user chooses, as arguments of the command line
settings.py      how long, how fast, on what
run_settings.py  what a training was asked for
folder.py        the run folder: all files of a training
lock.py          whether a process works in it
background.py    a training in a separate process
"""
