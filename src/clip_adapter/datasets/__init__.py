"""Labelled pictures: where they come from, how they are decoded, drawn and prepared."""
