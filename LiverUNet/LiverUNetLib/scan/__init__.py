"""A CT comes in, a mask goes out.

volume.py       what a scan is: HU and their place in the patient
formats.py      which file is read and written by what
nifti.py        NIfTI
itk.py          NRRD, MetaImage and Slicer's segmentations, by ITK
text_header.py  whether the voxels of a NRRD or MetaImage are all there, before ITK reads them
integrity.py    whether what is packed is whole
dicom/          DICOM series
unpacking.py    zips, for as long as they are read
masks.py        which voxels of a stored mask are inside
ct_checks.py    whether a volume is a CT
phantom.py      a scan whose liver is known
"""
