"""Train, evaluate and compare liver models; needs no Slicer."""
