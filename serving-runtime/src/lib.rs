//! The model server of Slipway: ONNX models by the Open Inference Protocol v2.
