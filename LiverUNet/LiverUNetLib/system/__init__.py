"""The computer: its devices, files and packages.

environment.py   devices that pass a test, and versions of packages
files.py         writes files completely or not at all
dependencies.py  finds missing packages, and explains failed installations
"""
