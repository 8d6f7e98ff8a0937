"""The page that a group passes round: what a search and its finished models found, in one HTML file."""
