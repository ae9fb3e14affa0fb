"""The methods: the only room where data, models and losses meet."""
