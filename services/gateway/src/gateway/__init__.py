"""The HTTP surface of Carillon: it shows and steers everything, and executes nothing itself."""
