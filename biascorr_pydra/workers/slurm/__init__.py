"""`--worker slurm-resources`: a Slurm cluster."""
