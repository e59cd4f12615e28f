"""Read a CT volume from DICOM files.

reader.py    the entry point: from a folder, a zip, a DICOMDIR or a file to a volume
headers.py   reads the header of a file into frames, with pydicom
values.py    attributes as numbers and text
series.py    sorts frames into series
choice.py    chooses one series
pixels.py    decodes its HU, with GDCM in SimpleITK
stacking.py  makes one volume of its slices
"""
