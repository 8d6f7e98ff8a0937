"""What every command shares: parsing of arguments, one-line errors, output."""
