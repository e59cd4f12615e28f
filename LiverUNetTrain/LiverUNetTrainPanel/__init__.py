"""LiverUNetTrain in Slicer: the panel and its logic. Everything that needs no Slicer is in LiverUNetTrainLib.

widget.py      the panel: its life cycle, and what ties the sections together
sections/      the parts of the panel, in the order of work
choices.py     what the user has chosen, for all sections
logic.py       what the buttons do, without a widget; for scripts too
steps.py       steps that wait for work in a background thread
jobs.py        the work that needs PyTorch, imported in that thread
nodes/         cases, segments and curves in the scene
liver_case.py  the button "Add to my training set" in LiverUNet's panel
"""
