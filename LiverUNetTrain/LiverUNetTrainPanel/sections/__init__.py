"""The parts of the training panel, in the order of work.

data.py      find and prepare cases, from folders and from the scene
train.py     start, watch, stop and resume a training
evaluate.py  scores of a model for each patient
use.py       install a run as a model, and exchange models as zips
rows.py      fills a table
"""
