"""Features: what a frozen backbone makes of pictures, kept, read and written."""
