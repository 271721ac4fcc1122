"""Training: a configuration goes in; weights, their card and a log come out. Each method fills in its own steps."""
