"""What works with other packages, one module each. Nothing else of stephttp imports them."""
