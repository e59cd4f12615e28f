"""NRRD and MetaImage: damaged, missing or impossible data are reported before ITK reads them."""

import zlib

import numpy as np
import pytest
import SimpleITK as sitk

from LiverUNetLib.cli.main import main
from LiverUNetLib.errors import OutputError, ScanError
from LiverUNetLib.scan.formats import check_output, read_volume

ATTACHED, DETACHED = ["ct.nrrd", "ct.mha"], ["ct.nhdr", "ct.mhd"]


@pytest.fixture
def written(a_phantom, tmp_path):
    """Write the phantom under a name, packed or not."""

    def write(name, *, packed):
        path = tmp_path / name
        sitk.WriteImage(sitk.GetImageFromArray(a_phantom[0].hu_kji), path, useCompression=packed)
        return path

    return write


def voxel_file(path):
    """The file that holds the voxels."""
    return next((part for part in path.parent.iterdir() if part != path), path)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ATTACHED + DETACHED)
def test_complete_files_are_read(name, packed, written, a_phantom):
    path = written(name, packed=packed)
    assert np.array_equal(read_volume(path).hu_kji, a_phantom[0].hu_kji)
    voxel_file(path).write_bytes(voxel_file(path).read_bytes() + b"something else")
    assert np.array_equal(read_volume(path).hu_kji, a_phantom[0].hu_kji)


@pytest.mark.parametrize("name", ATTACHED + DETACHED)
def test_a_flipped_bit_in_packed_voxels_is_reported_in_one_sentence(name, written, capfd):
    """MetaIO returns the part that it has unpacked, and only prints an error."""
    path = written(name, packed=True)
    part = voxel_file(path)
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 4
    part.write_bytes(content)
    assert main(["info", str(path)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(f"{path} is damaged: ")
    assert line.endswith("; copy it again.")


@pytest.mark.parametrize("missing", [1, 4, 8, 1000])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ATTACHED + DETACHED)
def test_a_file_cut_short_is_reported_in_one_sentence(name, packed, missing, written, capfd):
    path = written(name, packed=packed)
    voxel_file(path).write_bytes(voxel_file(path).read_bytes()[:-missing])
    assert main(["info", str(path)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    held = 96 * 72 * 44 * 2
    fault = (
        "is damaged: it is cut short; copy it again."
        if packed
        else f"cannot be read: its header claims 96 x 72 x 44 voxels, but it holds {held - missing} of their "
        f"{held} bytes; copy or convert it again."
    )
    assert line == f"{path} {fault}"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", DETACHED)
def test_a_missing_file_of_voxels_is_named_in_one_sentence(name, packed, written, capfd):
    path = written(name, packed=packed)
    gone = voxel_file(path)
    gone.unlink()
    assert main(["info", str(path)]) == 1
    told = f"{path} cannot be read: its voxels are in {gone.name}, which is not beside it; copy both.\n"
    assert capfd.readouterr().err == told


@pytest.mark.parametrize("size", ["32767 32767 32767", "3276700000 3276700000 3276700000", "96 72 45", "96 -72 44"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ATTACHED + DETACHED)
def test_a_header_that_claims_too_many_voxels_is_reported_in_one_sentence(name, packed, size, written, capfd):
    path = written(name, packed=packed)
    path.write_bytes(path.read_bytes().replace(b"96 72 44", size.encode(), 1))
    assert main(["info", str(path)]) == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith(str(path))
    assert "its header claims" in line or "[nrrd] _nrrdSizeCheck" in line  # teem says it well


@pytest.mark.parametrize("names", ["LIST\nslice0.raw\nslice1.raw", "slice%d.raw 0 1 1"])
@pytest.mark.parametrize("ending", [".mhd", ".nhdr"])
def test_a_file_for_each_slice_is_read_and_a_missing_one_is_named(names, ending, tmp_path):
    slices = np.arange(2 * 3 * 4, dtype="<i2").reshape(2, 3, 4)
    for number, slice_ in enumerate(slices):
        (tmp_path / f"slice{number}.raw").write_bytes(slice_.tobytes())
    headers = {
        ".mhd": "ObjectType = Image\nNDims = 3\nBinaryData = True\nDimSize = 4 3 2\nElementType = MET_SHORT\n"
        f"ElementDataFile = {names}\n",
        ".nhdr": "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 4 3 2\n"
        "space directions: (1,0,0) (0,1,0) (0,0,1)\nspace origin: (0,0,0)\n"
        f"endian: little\nencoding: raw\ndata file: {names}\n",
    }
    path = tmp_path / f"ct{ending}"
    path.write_text(headers[ending])
    assert np.array_equal(read_volume(path).hu_kji, slices)
    (tmp_path / "slice1.raw").unlink()
    with pytest.raises(ScanError, match=r"its voxels are in slice1\.raw, which is not beside it"):
        read_volume(path)


def test_a_checksum_of_zlib_counts_too(written):
    """The last bytes of a packed MetaImage, after all its voxels."""
    path = written("ct.mha", packed=True)
    content = bytearray(path.read_bytes())
    assert zlib.adler32(sitk.GetArrayFromImage(sitk.ReadImage(path)).tobytes()) == int.from_bytes(content[-4:], "big")
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ScanError, match="its checksum is wrong"):
        read_volume(path)


@pytest.mark.parametrize("name", ["mask.nrrd", "mask.seg.nrrd"])
def test_a_sheared_grid_is_refused_for_nrrd_before_the_work(name, a_phantom, tmp_path, capsys):
    from LiverUNetLib.scan.formats import write_volume

    affine = a_phantom[0].affine.copy()
    affine[1, 2] += 1.0
    check_output(tmp_path / "mask.nii.gz", affine)
    check_output(tmp_path / name, a_phantom[0].affine)
    with pytest.raises(OutputError, match="not perpendicular"):
        check_output(tmp_path / name, affine)
    write_volume(tmp_path / "ct.nii.gz", a_phantom[0].hu_kji, affine)
    output = ["-o", str(tmp_path / name), "--model", str(tmp_path / "none")]
    assert main(["segment", str(tmp_path / "ct.nii.gz"), *output]) == 1
    assert "axes are not perpendicular; write .nii.gz" in capsys.readouterr().err  # before the model is looked for
