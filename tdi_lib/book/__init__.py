"""What the book needs and the mathematics does not: claims, figures, and how outputs are compared."""
