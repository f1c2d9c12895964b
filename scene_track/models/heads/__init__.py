"""Task heads: what a decoder query (or a feature map) means."""
