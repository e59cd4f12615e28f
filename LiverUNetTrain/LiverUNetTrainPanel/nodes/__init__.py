"""Nodes of a Slicer scene for training.

cases.py     a case shown as a volume with segments
segments.py  segments of the scene as cases, and as masks on the voxels of a scan
plots.py     curves in plot nodes, scores in table nodes
"""
