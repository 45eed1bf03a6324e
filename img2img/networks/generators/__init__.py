"""Networks that make images, and their configs."""
