"""A chat model's question and its reply: no HTTP, no GPU."""
