"""From the best candidates of a search to finished models."""
