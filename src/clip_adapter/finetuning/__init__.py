"""Training inside a backbone, on the pixels of the shots."""
