"""From scans and masks to a cache that trainings read.

cases.py    a scan with its mask, read and checked
layouts.py  how data sets are laid out on disk
ircad.py    3D-IRCADb-01 as it is distributed
pairs.py    cases written as pairs of NIfTI files; the user's own training set
nnunet.py   cases written for nnU-Net
cache.py    each case once, on the grids of the model
splits.py   which patients train, validate, are held out
"""
