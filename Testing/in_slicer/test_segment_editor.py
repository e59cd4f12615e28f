"""Our segments in Slicer's Segment Editor."""

import slicer

from mrml_helpers import measured


def test_a_replacement_can_be_undone_in_the_segment_editor(panel, segmented, a_volume):
    node = segmented(a_volume).segmentationNode
    slicer.util.selectModule("SegmentEditor")
    editor = slicer.modules.SegmentEditorWidget.editor
    editor.setSegmentationNode(node)
    before = measured(node)
    slicer.util.arrayFromVolume(a_volume)[:22] = -1000
    segmented(a_volume, node)
    assert measured(node)[0] < 0.9 * before[0]
    editor.undo()
    assert measured(node)[0] == before[0]
