"""From what users hand in to batches a training step can take."""
