"""LiverUNet in Slicer: the panel and its logic. Everything that needs no Slicer is in LiverUNetLib.

widget.py       the panel: its life cycle, its parameter node, the runs on volumes of the scene
sections/       the parts of the panel
logic.py        what the buttons do, without a widget; for scripts too
nodes/          volumes, segmentations and tables of the scene
parameters.py   choices that are saved with the scene
settings.py     choices that are kept on this computer
consent.py      questions to the user before a run
installer.py    installs missing packages on first use
imports.py      imports large packages in a background thread
runner.py       runs a job step by step from the event loop
case_action.py  the button that the module LiverUNetTrain provides
"""
