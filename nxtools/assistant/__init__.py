"""Assistant models: llama.cpp, OpenAI-compatible APIs, transformers, behind one small protocol."""
