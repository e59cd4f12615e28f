"""Nodes of a Slicer scene, to and from the arrays and records of LiverUNetLib.

volume.py         a volume node as a CTVolume
warp.py           grids of voxels through Slicer's transforms
segmentation.py   a mask as the liver of a segmentation node
edits.py          whether a user has edited a segment
stored_result.py  measurements kept with a segmentation
table.py          measurements in a table node
"""
