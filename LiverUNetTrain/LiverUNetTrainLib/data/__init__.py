"""From scans and masks to a cache that trainings read.

cases.py    a scan with its mask, read and checked
layouts.py  the ways in which data sets lie on disk
ircad.py    3D-IRCADb-01 as it is distributed
pairs.py    cases written as pairs of NIfTI; one's own training set
nnunet.py   cases written for nnU-Net
cache.py    each case once, on the grids of the model
splits.py   which patients train, validate, are held out
"""
