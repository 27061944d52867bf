"""An ONNX file in, a TensorRT plan out: needs the library, and but for TensorRT-RTX a GPU."""
