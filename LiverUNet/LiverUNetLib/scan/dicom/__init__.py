"""One CT volume out of DICOM files.

reader.py    all of it, from a folder, a zip, a DICOMDIR or a file to a volume
headers.py   what the header of a file says of its slices, by pydicom
values.py    attributes as numbers and text
series.py    slices are sorted into series
choice.py    one series is chosen
pixels.py    its HU, decoded by GDCM in SimpleITK
stacking.py  its slices become one volume
"""
