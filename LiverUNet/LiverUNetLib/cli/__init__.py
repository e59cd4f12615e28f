"""The command line `liver-unet`.

main.py     segment, batch, info, doctor, demo
models.py   models: list, card, verify, install, remove, pack
console.py  shared by both command lines: streams, signals, exit codes
"""
