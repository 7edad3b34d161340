"""The stages as jobs of a SLURM cluster."""
