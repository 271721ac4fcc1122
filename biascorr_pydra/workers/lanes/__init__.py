"""`--worker lanes`: one machine's CPUs and GPUs."""
