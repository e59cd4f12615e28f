"""LiverUNetTrain in Slicer: the panel and its logic. Everything that needs no Slicer is in LiverUNetTrainLib.

widget.py  the panel: its life cycle, and what ties the sections together
sections/  the parts of the panel, in the order of work
logic.py   what the buttons do, without a widget; for scripts too
nodes/     cases, segments and curves in the scene
"""
