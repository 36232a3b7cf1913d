"""What a stack costs a month, by the prices in this folder."""
