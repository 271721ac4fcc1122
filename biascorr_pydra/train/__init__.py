"""Training, one file a method: a configuration goes in; weights, their card and a log come out."""
