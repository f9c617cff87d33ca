"""VideoPatchCore as torch calls: from the uploaded frame to the scores, everything stays on the device.

The files mirror those of the same name in `edge_vad`, and give what those give. Imported only where a bundle is opened with
a backend that takes tensors (`Backend.torch_device`): torch is there then.
"""
