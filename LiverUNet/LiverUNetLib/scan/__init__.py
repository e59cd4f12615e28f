"""Read a CT, write a mask.

volume.py       CTVolume: HU and their place in the patient
formats.py      chooses the reader or writer of a file
nifti.py        NIfTI
itk.py          NRRD, MetaImage and Slicer's segmentations, with ITK
text_header.py  checks that a NRRD or MetaImage has all its voxels, before ITK reads them
integrity.py    checks that packed data are complete
dicom/          DICOM series
unpacking.py    unpacks zips temporarily
masks.py        finds the voxels inside a stored mask
ct_checks.py    checks that a volume can be a CT
phantom.py      a synthetic scan whose liver is known
"""
