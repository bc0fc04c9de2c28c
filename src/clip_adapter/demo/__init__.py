"""The demo: drawn pictures, the data sets made of them, and the run that compares methods."""
