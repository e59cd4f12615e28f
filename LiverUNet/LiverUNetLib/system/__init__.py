"""The machine.

environment.py   devices that were seen to compute, and versions
files.py         files are written whole or not at all
dependencies.py  which packages are missing
"""
