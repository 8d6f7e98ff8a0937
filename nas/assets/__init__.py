"""What ships with the package: the small teacher and clips to search with."""
