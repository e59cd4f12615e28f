"""From HU to a liver.

pipeline.py        segments one scan: start here
grid.py            grids in a scan, and interpolation between them
looks.py           the coarse look finds the region of the liver, the fine look outlines it
postprocessing.py  selects one liver from the probabilities
measurement.py     measures its volume, attenuation and extent
signals.py         how far the looks of a run agree
anatomy.py         whether the body around the liver is as usual
plausibility.py    reasons to check the scan and the result
verdict.py         one word, its reasons and an estimate of the Dice
quality.py         draws the verdict on a result
result.py          the result, with and without its voxels
summary.py         results as sentences and table rows
batch.py           segments a folder of scans
batch_table.py     reads and writes the table of a batch
picture.py         draws masks on scans
"""
