"""Training: one step, the loop over steps, and what listens to it."""
