"""`stillroom serve`: the answers of exported files over HTTP, by FastAPI and ONNX Runtime, without torch."""
