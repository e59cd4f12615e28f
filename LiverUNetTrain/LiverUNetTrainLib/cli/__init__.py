"""The command line `liver-unet-train`.

main.py        prepare, export-pairs, export-nnunet, export
training.py    train, crossval
evaluation.py  evaluate, compare
calibration.py  calibrate
report.py      report, augment-preview
shared.py      what they share
"""
