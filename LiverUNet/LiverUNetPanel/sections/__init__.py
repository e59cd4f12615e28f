"""The parts of LiverUNet's panel.

model.py    choose, add and remove models
result.py   show a result, correct it, pass it on
folder.py   segment the files of a folder
buttons.py  enabled buttons, and tooltips that tell what is missing
"""
