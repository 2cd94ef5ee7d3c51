"""What the book needs and the mathematics does not: how a notebook's outputs are compared."""
