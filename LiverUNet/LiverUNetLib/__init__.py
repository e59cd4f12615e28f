"""Segment the liver in CT with a 2D U-Net; needs no Slicer."""
