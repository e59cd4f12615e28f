"""LiverUNet's face in Slicer: parameters, widget, logic, installer. What needs no Slicer is in LiverUNetLib."""
