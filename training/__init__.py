"""Images in, run folder out: the lowest layer, and (with export.to_onnx) the only home of torch."""
