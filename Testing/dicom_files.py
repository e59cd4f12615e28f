"""Write DICOM series for tests, by pydicom, and change them as real files are changed."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from LiverUNetLib.scan.volume import CTVolume

INTERCEPT = -1024


def write_series(folder: Path, volume: CTVolume, *, compressed: bool = False, **attributes: object) -> Path:
    """One file a slice, named so that the order of names is not that of positions."""
    folder.mkdir(parents=True, exist_ok=True)
    attributes = {"SeriesInstanceUID": generate_uid(), "SeriesNumber": 2, "SeriesDescription": "Portal", **attributes}
    names = np.random.default_rng(0).permutation(len(volume.hu_kji))
    for k, plane in enumerate(volume.hu_kji):
        dataset = _dataset(CTImageStorage, plane, attributes)
        (dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.PixelSpacing) = _place(volume, k)
        dataset.SliceThickness = 5.0
        if compressed:
            dataset.compress(RLELossless)
        dataset.save_as(folder / f"{names[k]:04d}", enforce_file_format=True)
    return folder


def write_enhanced(path: Path, volume: CTVolume) -> Path:
    """All slices in one multi-frame file, last one first; the rescale stands in the shared functional groups."""
    frames = volume.hu_kji[::-1]
    dataset = _dataset(EnhancedCTImageStorage, frames, {"SeriesInstanceUID": generate_uid(), "SeriesNumber": 3})
    del dataset.RescaleSlope, dataset.RescaleIntercept
    dataset.NumberOfFrames = len(frames)
    shared, measures, orientation, transformation = (pydicom.Dataset() for _ in range(4))
    _, orientation.ImageOrientationPatient, measures.PixelSpacing = _place(volume, 0)
    measures.SliceThickness = 5.0
    transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = 1, INTERCEPT, "HU"
    shared.PlaneOrientationSequence = [orientation]
    shared.PixelMeasuresSequence = [measures]
    shared.PixelValueTransformationSequence = [transformation]
    dataset.SharedFunctionalGroupsSequence = [shared]
    dataset.PerFrameFunctionalGroupsSequence = []
    for k in reversed(range(len(frames))):
        group, position = pydicom.Dataset(), pydicom.Dataset()
        position.ImagePositionPatient = _place(volume, k)[0]
        group.PlanePositionSequence = [position]
        dataset.PerFrameFunctionalGroupsSequence.append(group)
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_enhanced_by_frame(
    path: Path, volume: CTVolume, rescales: Sequence[tuple[float, float]], order: Sequence[int]
) -> Path:
    """As `write_enhanced`, with a slope and an intercept for each slice and the frames in that order of slices."""
    dataset = pydicom.dcmread(write_enhanced(path, volume))
    del dataset.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    places = dataset.PerFrameFunctionalGroupsSequence[::-1]
    stored = []
    for k in order:
        slope, intercept = rescales[k]
        transformation = pydicom.Dataset()
        transformation.RescaleSlope, transformation.RescaleIntercept, transformation.RescaleType = (
            slope,
            intercept,
            "HU",
        )
        places[k].PixelValueTransformationSequence = [transformation]
        stored.append((volume.hu_kji[k] - intercept) / slope)
    assert np.array_equal(stored, np.rint(stored)), "not to be stored exactly with these rescales"
    dataset.PerFrameFunctionalGroupsSequence = [places[k] for k in order]
    dataset.PixelRepresentation = int(np.min(stored) < 0)
    dataset.PixelData = np.array(stored).astype("<i2" if np.min(stored) < 0 else "<u2").tobytes()
    dataset.save_as(path)
    return path


def change(folder: Path, edit: Callable[[pydicom.Dataset], None], *, files: slice = slice(None)) -> Path:
    """Edit the files in a folder, or some of them in the order of their names."""
    for file in sorted(folder.iterdir())[files]:
        dataset = pydicom.dcmread(file)
        edit(dataset)
        dataset.save_as(file)
    return folder


def put_text(dataset: pydicom.Dataset, keyword: str, text: str) -> None:
    """Store a decimal string that pydicom would refuse to make."""
    tag, value = pydicom.tag.Tag(keyword), text.encode() + b" " * (len(text) % 2)
    dataset[tag] = RawDataElement(tag, "DS", len(value), value, 0, is_implicit_VR=False, is_little_endian=True)


def without_preamble(folder: Path, *, implicit: bool) -> Path:
    """The files as old scanners and some exports write them: the data set alone, no preamble and no meta group."""
    for file in folder.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.preamble, dataset.file_meta = None, FileMetaDataset()
        pydicom.dcmwrite(file, dataset, implicit_vr=implicit, little_endian=True)
        assert file.read_bytes()[128:132] != b"DICM"
    return folder


def assert_same(found: CTVolume, expected: CTVolume, *notes: str) -> None:
    """Same HU in the same places, and these notes alone."""
    assert found.hu_kji.shape == expected.hu_kji.shape
    assert np.array_equal(found.hu_kji, expected.hu_kji)
    assert np.abs(found.affine - expected.affine).max() < 1e-2
    assert found.notes == notes


def _dataset(sop_class: str, pixels: np.ndarray, attributes: dict[str, object]) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = sop_class, generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, meta.MediaStorageSOPInstanceUID
    dataset.Modality, dataset.ImageType = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = generate_uid(), generate_uid()
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, INTERCEPT
    dataset.PixelData = (pixels.astype(np.int32) - INTERCEPT).astype("<u2").tobytes()
    for name, value in attributes.items():
        setattr(dataset, name, value)
    return dataset


def _place(volume: CTVolume, k: int) -> tuple[list[float], list[float], list[float]]:
    """Position, orientation and pixel spacing of slice k in DICOM's LPS."""
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    position = lps @ [0, 0, k, 1]
    axes = (lps[:3, :2] / spacing[:2]).T.ravel()
    return position[:3].tolist(), axes.tolist(), [spacing[1], spacing[0]]
