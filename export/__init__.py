"""Run in, bundle out: the graph, its gates and the engines that run it. Only to_onnx touches torch."""
