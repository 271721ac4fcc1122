"""Simulated heads and gain fields, for training and tests."""
