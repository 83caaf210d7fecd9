"""The management port: pages, the API behind them, what is live, metrics. Knows the boots only by what it is given."""
