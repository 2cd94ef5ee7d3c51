"""What every chapter of the book uses: claims and one look for figures."""
