"""LiverUNetTrain's face in Slicer: data, training, evaluation, use. What needs no Slicer is in LiverUNetTrainLib."""
