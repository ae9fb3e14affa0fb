"""Stage 1: examples -> requests -> teacher -> shards. Spends money, so it keeps every answer."""
