"""`--worker dask-resources`: a Dask cluster."""
