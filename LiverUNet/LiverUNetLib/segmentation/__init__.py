"""From HU to a liver.

pipeline.py        one scan, from HU to mask, measures and warnings: begin here
grid.py            grids of samples in a scan, and values from one to another
looks.py           a coarse look finds the part with the liver, a fine one outlines it
postprocessing.py  one liver out of probabilities
measurement.py     its volume, attenuation and extent
signals.py         what a run tells of its own quality
anatomy.py         whether the body around the liver is as in nearly all scans
plausibility.py    what about scan and liver asks for care
verdict.py         one word, its reasons and an estimate of the Dice
quality.py         all of these brought together
result.py          the record that comes of it, without and with voxels
summary.py         results in words and rows
batch.py           many scans
batch_table.py     the table that comes of them
picture.py         scans with masks drawn on them
"""
