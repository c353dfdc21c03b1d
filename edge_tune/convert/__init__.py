"""From a Distiller schedule, and a W&B sweep, to an experiment file: python -m edge_tune.convert."""
