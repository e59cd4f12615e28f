"""The parts of LiverUNet's panel.

run.py       the one run of a panel: progress, status line, packages; in both panels
model.py     choose, add and remove models
result.py    show a result, correct it, pass it on
folder.py    segment the files of a folder
computer.py  device, packages, doctor, consents
buttons.py   enabled buttons, and tooltips that tell what is missing
"""
